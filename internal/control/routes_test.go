package control

import (
	"os"
	"strings"
	"testing"
)

// docs/serve.md has each request with its parameters.
func TestRoutesDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/serve.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range (&Server{}).routes() {
		request := strings.ReplaceAll(r.pattern, "{id}", "N")
		var row string
		for line := range strings.Lines(string(text)) {
			first, _, _ := strings.Cut(strings.TrimPrefix(line, "| "), " |")
			for each := range strings.SplitSeq(first, ", ") {
				name, _, _ := strings.Cut(strings.Trim(each, "`"), "?")
				if name == request {
					row = line
				}
			}
		}
		if row == "" {
			t.Errorf("docs/serve.md does not have %s", request)
		}
		for _, parameter := range r.parameters {
			if !strings.Contains(row, "?"+parameter+"=") && !strings.Contains(row, "&"+parameter+"=") {
				t.Errorf("docs/serve.md does not have the parameter %s of %s", parameter, request)
			}
		}
	}
}
