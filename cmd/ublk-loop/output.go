package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"unicode"

	"github.com/ublk-loop/ublk-loop/loop"
)

// printJSON prints a value as JSON that people can read too.
func printJSON(out io.Writer, v any) error {
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// printDevice prints what add does: a device's path, or all of its status.
func printDevice(out io.Writer, device *loop.Status, asJSON bool) error {
	if asJSON {
		return printJSON(out, device)
	}
	_, err := fmt.Fprintln(out, device.Device)
	return err
}

// printDevices prints a table of devices, nothing for none.
func printDevices(out io.Writer, devices []loop.Status) error {
	if len(devices) == 0 {
		return nil
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "DEVICE\tSTATE\tSIZE\tOFFSET\tSECTOR\tRO\tDIRECT-IO\tBUFFERS\tON-CRASH\tPID\tFILE")
	for i := range devices {
		d := &devices[i]
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%d\t%s\t%s\t%s\t%s\t%s\t%s\n",
			d.Device, d.State, formatSize(d.Size), formatSize(d.Offset), d.Limits.LogicalBlockSize,
			yesNo(d.ReadOnly), onOff(d.DirectIO), orDash(d.BufferMode), orDash(d.OnCrash), pidOf(d), orDash(oneLine(d.File)))
	}
	return table.Flush()
}

func pidOf(d *loop.Status) string {
	if d.PID == 0 {
		return "-"
	}
	return strconv.Itoa(d.PID)
}

func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

func yesNo(v bool) string {
	if v {
		return "yes"
	}
	return "no"
}

func onOff(v bool) string {
	if v {
		return "on"
	}
	return "off"
}

// oneLine returns a text as it is, or with escapes where a terminal would make
// something else of it: a file's name may hold anything.
func oneLine(text string) string {
	if strings.IndexFunc(text, func(r rune) bool { return !unicode.IsPrint(r) || r == unicode.ReplacementChar }) < 0 {
		return text
	}
	quoted := strconv.Quote(text)
	return strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`)
}
