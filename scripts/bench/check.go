package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// yardstick is the path by which the figures are divided: the kernel's loop
// driver in the same boot.
const yardstick = "loop, direct"

// attachCell is the cell of an attach. Its yardstick is a start of the same
// program.
var attachCell = Cell{Mode: "attach"}

// createCell is the cell of a container that starts with an image. Its yardstick is a start without
// an image. Starts in parallel have no ratio, because their median depends on the order in which
// they end.
var createCell = Cell{Mode: "create"}

// least is how small a ratio may become, given the stored ratio. Attach and create have a larger
// tolerance, because the order of its steps varies. A table of one linear line has a
// fixed limit: it must not cost more than that beside the plain device.
func (r *Ratio) least() float64 {
	switch {
	case r.Path == linearPath:
		return 0.97
	case r.Cell == attachCell, r.Cell == createCell:
		return 0.9 * r.Ratio
	}
	return 0.97 * r.Ratio
}

// yardstick returns the name of the ratio's yardstick.
func (r *Ratio) yardstick() string {
	switch {
	case r.Path == linearPath:
		return "the plain device"
	case r.Cell == attachCell:
		return "the program's start"
	case r.Path == createPath:
		return "a start without an image"
	case strings.HasPrefix(r.Path, cowPathName):
		return "dm-snapshot"
	}
	return "the kernel's loop"
}

// Ratio is the speed of ublk-loop at a cell, as a multiple of the yardstick.
type Ratio struct {
	Path  string  `json:"path"`
	Cell  Cell    `json:"cell"`
	Ratio float64 `json:"ratio"`
}

// ratios returns the ratios of all results that have a yardstick.
func (r *Report) ratios() []Ratio {
	var list []Ratio
	for i := range r.Results {
		x := &r.Results[i]
		by := r.find(x.Backing, yardstick, x.Cell)
		switch {
		case x.Path == linearPath:
			by = r.find(x.Backing, plainPath, x.Cell)
		case strings.HasPrefix(x.Path, cowPathName):
			by = r.find(x.Backing, dmSnapshotPath, x.Cell)
		}
		if x.Path != yardstick && by != nil {
			list = append(list, Ratio{x.Path, x.Cell, x.IOPS / by.IOPS})
		}
	}
	for _, a := range r.Attach {
		list = append(list, Ratio{a.Path, attachCell, r.StartNs.P50 / a.AttachNs.P50})
	}
	if s, by := r.findStart(createPath, 1), r.findStart(passPath, 1); s != nil && by != nil {
		list = append(list, Ratio{s.Path, createCell, by.Ns.P50 / s.Ns.P50})
	}
	return list
}

// errSlower is returned if a ratio has dropped.
var errSlower = errors.New("slower than it was")

// compare prints the ratios and the stored ratios. The error wraps errSlower if
// a ratio is below its limit. compare returns another error
// if a stored ratio was not measured.
func compare(w io.Writer, now, stored []Ratio) error {
	var slower int
	for _, was := range stored {
		i := slices.IndexFunc(now, func(r Ratio) bool { return r.Path == was.Path && r.Cell == was.Cell })
		if i < 0 {
			return fmt.Errorf("%s, %s: was not measured", was.Path, was.Cell)
		}
		change := now[i].Ratio/was.Ratio - 1
		verdict := "ok"
		if now[i].Ratio < was.least() {
			verdict = "SLOWER"
			slower++
		}
		fmt.Fprintf(w, "%-6s %s, %s: %.3f of %s, was %.3f (%+.1f %%)\n", verdict, was.Path, was.Cell, now[i].Ratio, was.yardstick(), was.Ratio, 100*change)
	}
	if slower > 0 {
		return fmt.Errorf("%d of %d ratios: %w", slower, len(stored), errSlower)
	}
	return nil
}

// mean returns the mean of each ratio over several reports, because ratios
// differ by 1 or 2 % from boot to boot.
func mean(reports []*Report) ([]Ratio, error) {
	list := reports[0].ratios()
	for _, r := range reports[1:] {
		more := r.ratios()
		if len(more) != len(list) {
			return nil, fmt.Errorf("%d ratios and %d", len(list), len(more))
		}
		for i := range list {
			list[i].Ratio += more[i].Ratio
		}
	}
	for i := range list {
		list[i].Ratio /= float64(len(reports))
	}
	return list, nil
}

func readRatios(path string) ([]Ratio, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var list []Ratio
	if err := json.Unmarshal(data, &list); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("read %s: no ratios", path)
	}
	return list, nil
}

func writeRatios(path string, list []Ratio) error {
	data, err := json.MarshalIndent(list, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(data, '\n'), 0o644)
}
