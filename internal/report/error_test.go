package report

import (
	"errors"
	"strings"
	"testing"
)

func TestPrint(t *testing.T) {
	for _, tt := range []struct{ text, hint, want string }{
		{"open /x: gone", "", "ublk-loop: error: open /x: gone\n"},
		{"open /x: gone", "look", "ublk-loop: error: open /x: gone\nhint: look\n"},
		{"open a\tb\x1b[31m: gone", "", `ublk-loop: error: open a\tb\x1b[31m: gone` + "\n"},
		{`open "a\tb": gone`, "", `ublk-loop: error: open "a\tb": gone` + "\n"},
		{errors.Join(errors.New("one"), errors.New("two")).Error(), "", "ublk-loop: error: one; two\n"},
	} {
		var out strings.Builder
		Print(&out, tt.text, tt.hint)
		if out.String() != tt.want {
			t.Errorf("%q prints as %q, want %q", tt.text, out.String(), tt.want)
		}
	}
}

// A warning is one line, also one with the text of joined errors.
func TestWarnings(t *testing.T) {
	var out strings.Builder
	Warnings(&out, "/x\n", []string{"one\ntwo", "a\x1b[31m"})
	want := `ublk-loop: warning: /x\n: one; two` + "\n" + `ublk-loop: warning: /x\n: a\x1b[31m` + "\n"
	if out.String() != want {
		t.Errorf("printed are %q, want %q", out.String(), want)
	}
}
