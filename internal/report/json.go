package report

import (
	"encoding/json"
	"io"
)

// JSON prints a value as JSON that people can read as well.
func JSON(out io.Writer, v any) error {
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}
