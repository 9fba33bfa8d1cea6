package control

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// expositionType is the media type of Prometheus' text format
// (https://prometheus.io/docs/instrumenting/exposition_formats).
const expositionType = "text/plain; version=0.0.4; charset=utf-8"

// exposition builds metrics in that format.
type exposition struct {
	bytes.Buffer
	name string // name of the current family
}

// family begins a family of metrics. help must contain neither backslashes nor newlines.
func (e *exposition) family(name, kind, help string) {
	e.name = name
	fmt.Fprintf(e, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
}

// sample adds a metric of the family with its value. labels are pairs of a name and a
// value. suffix names a part of a histogram.
func (e *exposition) sample(suffix string, value float64, labels ...string) {
	e.WriteString(e.name + suffix)
	for i := 0; i < len(labels); i += 2 {
		separator := ","
		if i == 0 {
			separator = "{"
		}
		e.WriteString(separator + labels[i] + `="` + labelValue(labels[i+1]) + `"`)
	}
	if len(labels) > 0 {
		e.WriteByte('}')
	}
	e.WriteString(" " + strconv.FormatFloat(value, 'f', -1, 64) + "\n")
}

var labelEscapes = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

// labelValue returns text in the form that it has between quotes. The format allows only
// UTF-8, while a file name can have any bytes.
func labelValue(text string) string {
	return labelEscapes.Replace(strings.ToValidUTF8(text, "\uFFFD"))
}
