package losetup

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
)

// format is the form of a list of devices: a table, raw lines or JSON.
type format struct {
	json, raw, noHeadings bool
}

// print prints devices. A nil device does not exist, and has the name that is given.
func (f format) print(out io.Writer, columns []*column, devices []*client.Device, name string) error {
	rows := make([][]string, len(devices))
	for i, d := range devices {
		for _, c := range columns {
			value := c.value(d)
			if d == nil && c.name == "NAME" {
				value = name
			}
			rows[i] = append(rows[i], f.cell(c, value))
		}
	}
	var b strings.Builder
	switch {
	case f.json:
		writeJSON(&b, columns, rows)
	case len(rows) == 0: // no headings
	case f.raw:
		f.writeRaw(&b, columns, rows)
	default:
		f.writeTable(&b, columns, rows)
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// cell returns a value as the format has it.
func (f format) cell(c *column, value string) string {
	switch {
	case f.json:
		return value
	case f.raw:
		return escape(value, func(b byte) bool { return b == ' ' || b == '\\' || isControl(b) })
	case c.pad != "" && value != "":
		return fmt.Sprintf(c.pad, major(value), minor(value))
	}
	return escape(value, isControl)
}

func isControl(b byte) bool { return b < ' ' || b == 0x7f }

// escape replaces characters, and bytes that are not UTF-8, by \xNN.
func escape(text string, bad func(byte) bool) string {
	var b strings.Builder
	for i := 0; i < len(text); {
		r, n := utf8.DecodeRuneInString(text[i:])
		if n == 1 && (r == utf8.RuneError || bad(text[i])) {
			fmt.Fprintf(&b, `\x%02x`, text[i])
		} else {
			b.WriteString(text[i : i+n])
		}
		i += n
	}
	return b.String()
}

func (f format) writeRaw(b *strings.Builder, columns []*column, rows [][]string) {
	if !f.noHeadings {
		rows = append([][]string{headings(columns)}, rows...)
	}
	for _, row := range rows {
		fmt.Fprintln(b, strings.Join(row, " "))
	}
}

func headings(columns []*column) []string {
	names := make([]string, len(columns))
	for i, c := range columns {
		names[i] = c.name
	}
	return names
}

// writeTable writes a table. A value in the last column has no spaces behind it.
func (f format) writeTable(b *strings.Builder, columns []*column, rows [][]string) {
	if !f.noHeadings {
		rows = append([][]string{headings(columns)}, rows...)
	}
	widths := make([]int, len(columns))
	for i, c := range columns {
		widths[i] = c.width
		for _, row := range rows {
			widths[i] = max(widths[i], utf8.RuneCountInString(row[i]))
		}
	}
	for _, row := range rows {
		for i, value := range row {
			padding := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(value))
			last := i == len(row)-1
			switch {
			case last && value == "":
			case columns[i].right:
				b.WriteString(padding + value)
			case last:
				b.WriteString(value)
			default:
				b.WriteString(value + padding)
			}
			if !last {
				b.WriteByte(' ')
			}
		}
		b.WriteByte('\n')
	}
}

// oldFormat prints a device in the format of the first losetups.
func oldFormat(out io.Writer, d *client.Device) error {
	line := fmt.Sprintf("%s: [%04d]:%d (%s)", d.Device, deviceNumber(d.FileDevice), d.FileInode, escape(backFile(d), isControl))
	if d.Offset != 0 {
		line += fmt.Sprintf(", offset %d", d.Offset)
	}
	if d.SizeLimit != 0 {
		line += fmt.Sprintf(", sizelimit %d", d.SizeLimit)
	}
	_, err := fmt.Fprintln(out, line)
	return err
}

// deviceNumber returns "major:minor" as one number, as stat(2) does.
func deviceNumber(majMin string) uint64 {
	a, _ := strconv.ParseUint(major(majMin), 10, 32) // 0 without a number
	b, _ := strconv.ParseUint(minor(majMin), 10, 32)
	return unix.Mkdev(uint32(a), uint32(b))
}
