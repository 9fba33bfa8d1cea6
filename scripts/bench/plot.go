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

// colors are the colors of the paths, in order. People with color blindness can
// also distinguish them (Okabe and Ito).
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

// writePlots draws a chart for each backing, except those of snapshots, whose cells are others. The file names contain the
// backing.
func writePlots(r *Report, dir string) ([]string, error) {
	var files []string
	for _, backing := range r.backings() {
		if strings.Contains(backing, chunksOf) || strings.HasPrefix(backing, verityMode) {
			continue
		}
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

// chart holds the speed of each path in each cell of one backing, as a multiple
// of one path's speed, because cells differ too much for one scale.
type chart struct {
	cells  []Cell
	paths  []string
	by     string                    // the path with the value 1 in every cell
	values map[string]plotter.Values // by path, one for each cell; 0 if not measured
}

func (r *Report) chart(backing string) chart {
	c := chart{values: map[string]plotter.Values{}}
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
	c.by = c.paths[0]
	if slices.Contains(c.paths, yardstick) {
		c.by = yardstick
	}
	for _, path := range c.paths {
		for _, cell := range c.cells {
			value := 0.0
			if x, by := r.find(backing, path, cell), r.find(backing, c.by, cell); x != nil && by != nil {
				value = x.IOPS / by.IOPS
			}
			c.values[path] = append(c.values[path], value)
		}
	}
	return c
}

// Sizes of a chart, in points.
const (
	cellWidth   = 104 // includes barsWidth
	barsWidth   = 72
	legendWidth = 150
	chartHeight = 300
	margin      = 10
)

func writePlot(r *Report, backing, file string) error {
	c := r.chart(backing)
	p := plot.New()
	p.Title.Text = fmt.Sprintf("%s, Linux %s; clock: %s", backing, r.Kernel, r.Clock)
	p.Y.Label.Text = "I/Os a second, as a multiple of " + c.by
	p.Y.Min = 0
	p.Y.Tick.Marker = plot.TickerFunc(halves)
	p.BackgroundColor = color.White
	p.Add(plotter.NewGrid())
	legend, err := c.bars(p)
	if err != nil {
		return err
	}
	names := make([]string, len(c.cells))
	for i, cell := range c.cells {
		names[i] = cell.String()
	}
	p.NominalX(names...)
	width := vg.Length(max(3, len(c.cells))*cellWidth + legendWidth)
	canvas := vgsvg.New(width, chartHeight)
	all := draw.Crop(draw.New(canvas), margin, -margin, margin, -margin)
	p.Draw(draw.Crop(all, 0, -legendWidth, 0, 0))
	legend.Draw(all)
	return save(canvas, file)
}

// halves marks the halves of an axis.
func halves(_, highest float64) []plot.Tick {
	var ticks []plot.Tick
	for at := 0.0; at <= highest; at += 0.5 {
		ticks = append(ticks, plot.Tick{Value: at, Label: fmt.Sprintf("%.1f", at)})
	}
	return ticks
}

// bars adds the bars of each path to a plot and returns their legend.
func (c *chart) bars(p *plot.Plot) (*plot.Legend, error) {
	legend := plot.NewLegend()
	legend.Top = true
	legend.TextStyle.Font.Size = 10
	legend.ThumbnailWidth = margin
	width := vg.Points(barsWidth / float64(len(c.paths)))
	for i, path := range c.paths {
		bars, err := plotter.NewBarChart(c.values[path], width)
		if err != nil {
			return nil, err
		}
		bars.LineStyle.Width = 0
		bars.Color = colors[i%len(colors)]
		bars.Offset = width * vg.Length(float64(i)-float64(len(c.paths)-1)/2)
		p.Add(bars)
		legend.Add(path, bars)
	}
	return &legend, nil
}

func save(canvas *vgsvg.Canvas, file string) error {
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
