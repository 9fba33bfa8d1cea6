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

// exposition is metrics in that format.
type exposition struct {
	bytes.Buffer
	name string // of the last family
}

// family begins the metrics of a name. Help has neither backslashes nor
// newlines.
func (e *exposition) family(name, kind, help string) {
	e.name = name
	fmt.Fprintf(e, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
}

// sample adds a metric of the family: its value, and pairs of a label and what
// that is. A suffix to the name is part of a histogram.
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

// labelValue returns a text as it is between quotes. The format takes UTF-8
// only; a file's name can be anything.
func labelValue(text string) string {
	return labelEscapes.Replace(strings.ToValidUTF8(text, "\uFFFD"))
}
