package main

import (
	"fmt"
	"image/color"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// colors are those of the paths, in their order: told apart by people who see
// fewer colors, too (Okabe and Ito).
var colors = []color.Color{
	color.RGBA{0x99, 0x99, 0x99, 0xff},
	color.RGBA{0xe6, 0x9f, 0x00, 0xff},
	color.RGBA{0xf0, 0xe4, 0x42, 0xff},
	color.RGBA{0x00, 0x72, 0xb2, 0xff},
	color.RGBA{0x56, 0xb4, 0xe9, 0xff},
	color.RGBA{0x00, 0x9e, 0x73, 0xff},
	color.RGBA{0xd5, 0x5e, 0x00, 0xff},
	color.RGBA{0xcc, 0x79, 0xa7, 0xff},
	color.RGBA{0x00, 0x00, 0x00, 0xff},
}

// writePlots draws a chart for each backing and names them for it.
func writePlots(r *Report, dir string) ([]string, error) {
	var files []string
	for _, backing := range r.backings() {
		file := filepath.Join(dir, "bench-"+slug(backing)+".svg")
		if err := writePlot(r, backing, file); err != nil {
			return nil, fmt.Errorf("draw %s: %w", file, err)
		}
		files = append(files, file)
	}
	return files, nil
}

var notInSlug = regexp.MustCompile(`[^a-z0-9]+`)

func slug(name string) string {
	return strings.Trim(notInSlug.ReplaceAllString(strings.ToLower(name), "-"), "-")
}

// chart is the IOPS of each path in each cell of one backing.
type chart struct {
	cells []Cell
	paths []string
	iops  map[string]plotter.Values // by path, a value for each cell
}

func (r *Report) chart(backing string) chart {
	c := chart{iops: map[string]plotter.Values{}}
	for i := range r.Results {
		x := &r.Results[i]
		if x.Backing != backing {
			continue
		}
		if !slices.Contains(c.cells, x.Cell) {
			c.cells = append(c.cells, x.Cell)
		}
		if !slices.Contains(c.paths, x.Path) {
			c.paths = append(c.paths, x.Path)
		}
	}
	for _, path := range c.paths {
		for _, cell := range c.cells {
			value := 0.0
			if x := r.find(backing, path, cell); x != nil {
				value = x.IOPS / 1000
			}
			c.iops[path] = append(c.iops[path], value)
		}
	}
	return c
}

func writePlot(r *Report, backing, file string) error {
	c := r.chart(backing)
	p := plot.New()
	p.Title.Text = fmt.Sprintf("%s, Linux %s; clock: %s", backing, r.Kernel, r.Clock)
	p.Y.Label.Text = "thousand I/Os a second"
	p.Y.Min = 0
	p.Legend.Top = true
	p.BackgroundColor = color.White
	width := vg.Points(72 / float64(len(c.paths)))
	names := make([]string, len(c.cells))
	for i, cell := range c.cells {
		names[i] = cell.String()
	}
	for i, path := range c.paths {
		bars, err := plotter.NewBarChart(c.iops[path], width)
		if err != nil {
			return err
		}
		bars.LineStyle.Width = 0
		bars.Color = colors[i%len(colors)]
		bars.Offset = width * vg.Length(float64(i)-float64(len(c.paths)-1)/2)
		p.Add(bars)
		p.Legend.Add(path, bars)
	}
	p.NominalX(names...)
	canvas := vgsvg.New(vg.Points(max(480, 104*float64(len(c.cells)))), vg.Points(300))
	p.Draw(draw.New(canvas))
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	if _, err := canvas.WriteTo(out); err != nil {
		_ = out.Close()
		return err
	}
	return out.Close()
}
