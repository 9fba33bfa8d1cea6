package losetup

import (
	"fmt"
	"strings"
)

// writeJSON writes rows as losetup does, with the names of columns in lower case.
func writeJSON(b *strings.Builder, columns []*column, rows [][]string) {
	b.WriteString("{\n   \"loopdevices\": [\n")
	for i, row := range rows {
		open := "      {\n"
		if i > 0 {
			open = ",{\n"
		}
		b.WriteString(open)
		for j, c := range columns {
			comma := ","
			if j == len(columns)-1 {
				comma = ""
			}
			fmt.Fprintf(b, "         %s: %s%s\n", quote(strings.ToLower(c.name)), c.json(row[j]), comma)
		}
		b.WriteString("      }")
	}
	b.WriteString("\n   ]\n}\n")
}

// json returns a value of the column in JSON.
func (c *column) json(value string) string {
	switch {
	case value == "":
		return "null"
	case c.kind == boolean && value == "0":
		return "false"
	case c.kind == boolean:
		return "true"
	case c.kind == number:
		return value
	}
	return quote(value)
}

// quote returns a string in JSON. It keeps bytes that are not UTF-8, as losetup does.
func quote(value string) string {
	short := map[byte]string{'"': `\"`, '\\': `\\`, '\b': `\b`, '\t': `\t`, '\n': `\n`, '\f': `\f`, '\r': `\r`}
	var b strings.Builder
	b.WriteByte('"')
	for i := range len(value) {
		switch c := value[i]; {
		case short[c] != "":
			b.WriteString(short[c])
		case c < ' ':
			fmt.Fprintf(&b, `\u%04x`, c)
		default:
			b.WriteByte(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}
