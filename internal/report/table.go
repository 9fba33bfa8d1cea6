package report

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/internal/bytesize"
	"github.com/ublk-loop/ublk-loop/loop"
)

// DeviceTable prints a table of devices. It prints nothing if there are none.
func DeviceTable(out io.Writer, devices []client.Device) error {
	if len(devices) == 0 {
		return nil
	}
	devices = markDeleted(devices)
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "DEVICE\tSTATE\tSIZE\tOFFSET\tSECTOR\tRO\tDIRECT-IO\tBUFFERS\tON-CRASH\tPID\tFILE")
	for i := range devices {
		d := &devices[i]
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%d\t%s\t%s\t%s\t%s\t%s\t%s\n",
			d.Device, stateOf(d), bytesize.Format(d.Size), bytesize.Format(d.Offset), d.Limits.LogicalBlockSize,
			yesNo(d.ReadOnly), onOff(d.DirectIO), buffersOf(d), OrDash(d.OnCrash), pidOf(d), OrDash(OneLine(filesOf(d))))
	}
	return table.Flush()
}

// stateOf returns the state, with V or C for a device with verity, and with Invalid, Overflow or
// the use of the fullest store for a snapshot.
func stateOf(d *client.Device) string {
	var notes []string
	if d.Verity != "" {
		notes = append(notes, d.Verity)
	}
	if len(d.Stores) > 0 {
		notes = append(notes, usedOf(d))
	}
	if notes == nil {
		return d.State
	}
	return d.State + " (" + strings.Join(notes, ", ") + ")"
}

func usedOf(d *client.Device) string {
	most := 0
	for i := range d.Stores {
		if state := d.Stores[i].State; state != "" {
			return state
		}
		most = max(most, percent(&d.Stores[i]))
	}
	return fmt.Sprintf("%d %% used", most)
}

// percent returns the part of a store that is in use, with its metadata.
func percent(s *client.StoreStats) int {
	if s.Size == 0 {
		return 100
	}
	return int(100 * (float64(s.Allocated) / float64(s.Size)))
}

// nearlyFull is the use of a store, in percent, that is worth a warning.
const nearlyFull = 80

// FullStores returns warnings about stores that are nearly full, were full, or have failed.
func FullStores(d *client.Device) (warnings []string) {
	for i := range d.Stores {
		s := &d.Stores[i]
		switch used := percent(s); {
		case s.State != "":
			warnings = append(warnings, fmt.Sprintf("store %s: %s", OneLine(s.File), s.State))
		case used >= nearlyFull:
			warnings = append(warnings, fmt.Sprintf("store %s: %d %% used", OneLine(s.File), used))
		}
	}
	return warnings
}

// filesOf returns the path of the device's file, or those of the files below its tables.
func filesOf(d *client.Device) string {
	if d.Table == "" {
		return d.File
	}
	paths := []string{}
	for _, f := range d.Files {
		if !slices.Contains(paths, f.File) {
			paths = append(paths, f.File)
		}
	}
	return "table of " + cmp.Or(strings.Join(paths, ", "), "no file")
}

// buffersOf returns the buffer mode. It adds the reason for copying if the disk requires
// it.
func buffersOf(d *client.Device) string {
	if d.CopyReason == loop.CopyChecksums {
		return d.BufferMode + " (" + d.CopyReason + ")"
	}
	return OrDash(d.BufferMode)
}

func pidOf(d *client.Device) string {
	if d.PID == 0 {
		return "-"
	}
	return strconv.Itoa(d.PID)
}

// Device prints a device as add does: its path, or as JSON all its fields.
func Device(out io.Writer, device *client.Device, asJSON bool) error {
	if asJSON {
		return JSON(out, device)
	}
	_, err := fmt.Fprintln(out, device.Device)
	return err
}
