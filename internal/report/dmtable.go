package report

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/loop"
	"github.com/ublk-loop/ublk-loop/transfer"
)

// DMTables prints tables with which dmsetup(8) makes the same disks, in the format of
// dmsetup table. The tables of a device of tables are in the concise format. If there are several tables, each has its name in front.
func DMTables(out io.Writer, devices []client.Device) error {
	for i := range devices {
		table, err := dmTable(&devices[i])
		if err != nil {
			return err
		}
		if len(devices) > 1 {
			table = fmt.Sprintf("ublkb%d: %s", devices[i].ID, table)
		}
		if _, err := fmt.Fprintln(out, table); err != nil {
			return err
		}
	}
	return nil
}

// dmTable returns the line for one device, with the target linear or crypt
// (Documentation/admin-guide/device-mapper/dm-crypt.rst of the kernel). The line has the
// name of the key, not the key. dm-crypt looks for the name in the kernel's keyrings, and
// refuses the table if the key is missing.
func dmTable(d *client.Device) (string, error) {
	if d.Table != "" {
		return dmStack(d)
	}
	target := ""
	t := &d.Transfer
	if d.Offset%(1<<transfer.SectorShift) != 0 { // which a read-only device can have
		return "", fmt.Errorf("list %s: it starts at byte %d, and device mapper counts in sectors of 512: %w", d.Device, d.Offset, errors.ErrUnsupported)
	}
	switch t.Name {
	case transfer.None, "":
		target = fmt.Sprintf("linear %s %d", dmBacking(d), d.Offset>>transfer.SectorShift)
	case transfer.AESXTSPlain64, transfer.AESXTSPlain:
		target = fmt.Sprintf("crypt %s :%d:user:%s %d %s %d%s", t.Name, t.KeyBytes, dmKeyDescription(d),
			t.IVOffset, dmBacking(d), d.Offset>>transfer.SectorShift, dmOptions(t))
	default:
		return "", &hint.Error{
			Err:  fmt.Errorf("list %s: device mapper has no %s: %w", d.Device, t.Name, errors.ErrUnsupported),
			Hint: "list the other devices by name",
		}
	}
	return fmt.Sprintf("0 %d %s", d.Size>>transfer.SectorShift, target), nil
}

// dmStack returns the tables of a device in the concise format, which dmsetup create --concise
// takes. The table of a device without a name for it gets the device's name.
func dmStack(d *client.Device) (string, error) {
	tables, err := loop.ParseTable([]byte(d.Table))
	if err != nil {
		return "", fmt.Errorf("list %s: read its table: %w", d.Device, err)
	}
	defer tables.Close()
	names := tables.Devices()
	if len(names) != len(d.Files) {
		return "", fmt.Errorf("list %s: %s for %s of its table: %w", d.Device, Count(len(d.Files), "file"), Count(len(names), "device"), unix.EINVAL)
	}
	for i, f := range d.Files {
		switch {
		case f.IsDisk:
			names[i] = f.Device
		case !strings.ContainsAny(f.File, " \t\n\r\v\f#"): // which a table cannot have
			names[i] = f.File
		}
	}
	if d.ReadOnly {
		tables.Tables[len(tables.Tables)-1].ReadOnly = true
	}
	return tables.ConciseFor(fmt.Sprintf("ublkb%d", d.ID), names), nil
}

// dmOptions returns the optional arguments, with their number in front.
func dmOptions(t *client.Transfer) string {
	var options []string
	if t.AllowDiscards {
		options = append(options, "allow_discards")
	}
	if t.SectorSize != 1<<transfer.SectorShift {
		options = append(options, fmt.Sprintf("sector_size:%d", t.SectorSize))
	}
	if t.IVLargeSectors {
		options = append(options, "iv_large_sectors")
	}
	if len(options) == 0 {
		return ""
	}
	return fmt.Sprintf(" %d %s", len(options), strings.Join(options, " "))
}

// dmBacking names the disk or file behind a device. A disk is named by its number.
// Device mapper takes no files, so that a file's path stands for a loop device that the
// administrator has to make of the file.
func dmBacking(d *client.Device) string {
	if d.FileIsDisk {
		return d.FileDevice
	}
	return dmEscaper.Replace(OneLine(d.File))
}

// dmEscaper makes a path one word (dm_split_args in drivers/md/dm-table.c).
var dmEscaper = strings.NewReplacer(`\`, `\\`, " ", `\ `)

// dmKeyDescription returns the description of the key in the kernel's keyrings. Anyone can have written the
// UUID into the header of the volume. One with a space would be several arguments of the table, and name
// another disk.
func dmKeyDescription(d *client.Device) string {
	if id := d.Transfer.UUID; id != "" && strings.Trim(id, "-0123456789abcdefABCDEF") == "" {
		return "ublk-loop:" + id
	}
	return fmt.Sprintf("ublk-loop:%d", d.ID)
}
