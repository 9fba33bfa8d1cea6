package main

import (
	"bytes"
	"io"
	"strings"
	"testing"
)

// A hook reads its input to the end, whatever it does with it. Otherwise SIGPIPE kills a
// runtime that is still writing.
func TestHooksReadTheirInput(t *testing.T) {
	state := `{"pid":0}` + strings.Repeat(" ", 1<<20)
	for _, tt := range []struct {
		args []string
		in   string
	}{
		{[]string{"precreate"}, "{}" + strings.Repeat(" ", 1<<20)},
		{[]string{"precreate"}, "not a configuration" + strings.Repeat(" ", 1<<20)},
		{[]string{"precreate"}, strings.Repeat(" ", 65<<20)},
		{[]string{"poststart", "none"}, state},
		{[]string{"poststart", "none"}, "not a state" + strings.Repeat(" ", 1<<20)},
		{[]string{"poststop", "none"}, state},
		{[]string{"poststop", "0000000000000001-ABCDEFGHIJKLMNOPQRSTUVW234"}, state},
	} {
		in := strings.NewReader(tt.in)
		var out, errOut bytes.Buffer
		a := &app{in: struct{ io.Reader }{in}, out: &out, errOut: &errOut}
		a.run(append([]string{"hook"}, tt.args...))
		if in.Len() != 0 {
			t.Errorf("%s %.20q leaves %d bytes unread: %s", tt.args, tt.in, in.Len(), errOut.String())
		}
	}
}
