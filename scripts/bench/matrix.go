package main

import "fmt"

// Cell is one job of the matrix.
type Cell struct {
	Mode  string `json:"rw"` // fio's --rw
	Bytes int    `json:"bs"`
	Depth int    `json:"iodepth"`
	Jobs  int    `json:"numjobs"`
}

// String returns a cell's name, such as "randread 4k x32".
func (c Cell) String() string {
	if c == attachCell || c == createCell {
		return c.Mode
	}
	name := fmt.Sprintf("%s %dk x%d", c.Mode, c.Bytes>>10, c.Depth)
	if c.Jobs > 1 {
		name += fmt.Sprintf(" %d jobs", c.Jobs)
	}
	return name
}

// shortCells are the five cells for which the project has goals.
var shortCells = []Cell{
	{"randread", 4 << 10, 32, 1},
	{"randwrite", 4 << 10, 32, 1},
	{"randread", 4 << 10, 1, 1},
	{"read", 128 << 10, 8, 1},
	{"read", 512 << 10, 4, 1},
}

// fileCells are the cells of the short matrix for files.
var fileCells = []Cell{
	{"randread", 4 << 10, 32, 1},
	{"randwrite", 4 << 10, 32, 1},
	{"read", 128 << 10, 8, 1},
}

// linearCells are the cells for a table of one linear line.
var linearCells = []Cell{
	{"randread", 4 << 10, 32, 1},
	{"read", 128 << 10, 8, 1},
}

// fullCells returns the whole matrix. many is the larger number of jobs.
func fullCells(many int) []Cell {
	var cells []Cell
	for _, mode := range []string{"read", "write", "randread", "randwrite"} {
		for _, kib := range []int{4, 64, 128, 512, 1024} {
			for _, depth := range []int{1, 8, 32} {
				for _, jobs := range []int{1, many} {
					cells = append(cells, Cell{mode, kib << 10, depth, jobs})
				}
			}
		}
	}
	return cells
}
