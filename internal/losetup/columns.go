package losetup

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/ublk-loop/ublk-loop/client"
)

// kind is the type of a column's values in JSON.
type kind int

const (
	text kind = iota
	number
	boolean
)

// column is a column of the output.
type column struct {
	name  string
	help  string
	kind  kind
	right bool // align to the right
	width int  // minimum width in a table
	// pad is the format of two numbers in a table, which other formats do not pad.
	pad string
	// value returns the value of a device, which is nil for one that does not exist.
	value func(d *client.Device) string
}

// columns are all columns, in the order of --output-all.
var columns = []*column{
	{name: "NAME", help: "loop device name", value: of(func(d *client.Device) string { return d.Device })},
	{name: "AUTOCLEAR", help: "autoclear flag set", kind: boolean, right: true, width: 1, value: flag(func(d *client.Device) bool { return d.Autoclear })},
	{name: "BACK-FILE", help: "device backing file", value: of(backFile)},
	{name: "BACK-INO", help: "backing file inode number", kind: number, right: true, width: 4, value: of(func(d *client.Device) string { return unlessZero(d.FileInode) })},
	{name: "BACK-MAJ:MIN", help: "backing file major:minor device number", width: 6, pad: "%8s:%-3s", value: of(func(d *client.Device) string { return d.FileDevice })},
	{name: "BACK-MAJ", help: "backing file major device number", width: 6, value: of(func(d *client.Device) string { return major(d.FileDevice) })},
	{name: "BACK-MIN", help: "backing file minor device number", width: 6, value: of(func(d *client.Device) string { return minor(d.FileDevice) })},
	{name: "MAJ:MIN", help: "loop device major:minor number", width: 3, pad: "%3s:%-3s", value: of(func(d *client.Device) string { return d.MajMin })},
	{name: "MAJ", help: "loop device major number", kind: number, right: true, width: 1, value: of(func(d *client.Device) string { return major(d.MajMin) })},
	{name: "MIN", help: "loop device minor number", kind: number, right: true, width: 1, value: of(func(d *client.Device) string { return minor(d.MajMin) })},
	{name: "OFFSET", help: "offset from the beginning", kind: number, right: true, width: 5, value: of(func(d *client.Device) string { return decimal(d.Offset) })},
	{name: "PARTSCAN", help: "partscan flag set", kind: boolean, right: true, width: 1, value: flag(func(d *client.Device) bool { return d.PartScan })},
	{name: "REF", help: "loop device reference string", value: of(refOf)},
	{name: "RO", help: "read-only device", kind: boolean, right: true, width: 1, value: flag(func(d *client.Device) bool { return d.ReadOnly })},
	{name: "SIZELIMIT", help: "size limit of the file in bytes", kind: number, right: true, width: 5, value: of(func(d *client.Device) string { return decimal(d.SizeLimit) })},
	{name: "DIO", help: "access backing file with direct-io", kind: boolean, right: true, width: 1, value: flag(func(d *client.Device) bool { return d.DirectIO })},
	{name: "LOG-SEC", help: "logical sector size in bytes", kind: number, right: true, width: 4, value: of(func(d *client.Device) string { return unlessZero(uint64(d.Limits.LogicalBlockSize)) })},
}

// defaultNames are the columns without --output.
const defaultNames = "NAME,SIZELIMIT,OFFSET,AUTOCLEAR,RO,BACK-FILE,DIO,LOG-SEC"

// of returns a value that is empty for a device that does not exist.
func of(value func(*client.Device) string) func(*client.Device) string {
	return func(d *client.Device) string {
		if d == nil {
			return ""
		}
		return value(d)
	}
}

// flag returns the value of a flag, which is not set on a device that does not exist.
func flag(is func(*client.Device) bool) func(*client.Device) string {
	return func(d *client.Device) string {
		if d != nil && is(d) {
			return "1"
		}
		return "0"
	}
}

func decimal(n uint64) string { return strconv.FormatUint(n, 10) }

func unlessZero(n uint64) string {
	if n == 0 {
		return ""
	}
	return decimal(n)
}

func major(majMin string) string {
	major, _, _ := strings.Cut(majMin, ":")
	return major
}

func minor(majMin string) string {
	_, minor, _ := strings.Cut(majMin, ":")
	return minor
}

// defaultColumns returns the columns that --output=+… adds to.
func (p *parser) defaultColumns() []*column {
	if p.outputAll {
		return columns
	}
	list, err := findColumns(defaultNames)
	if err != nil {
		panic(err) // defaultNames is wrong
	}
	return list
}

// chooseColumns applies --output.
func (p *parser) chooseColumns() error {
	if p.outputs == nil {
		return nil
	}
	names, add := strings.CutPrefix(*p.outputs, "+")
	list, err := findColumns(names)
	if err != nil {
		return err
	}
	if add {
		list = append(slices.Clone(p.columns), list...)
	}
	p.columns = list
	return nil
}

// findColumns returns the columns with the names in a list, in any case.
func findColumns(names string) ([]*column, error) {
	var list []*column
	for name := range strings.SplitSeq(names, ",") {
		i := slices.IndexFunc(columns, func(c *column) bool { return strings.EqualFold(c.name, name) })
		if i < 0 {
			return nil, fmt.Errorf("unknown column: %s", name)
		}
		list = append(list, columns[i])
	}
	if len(list) == 0 {
		return nil, errors.New("no columns")
	}
	return list, nil
}
