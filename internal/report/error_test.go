package report

import (
	"errors"
	"io/fs"
	"strings"
	"testing"
)

func TestPrint(t *testing.T) {
	for _, tt := range []struct{ text, hint, want string }{
		{"open /x: gone", "", "ublk-loop: error: open /x: gone\n"},
		{"open /x: gone", "look", "ublk-loop: error: open /x: gone\nhint: look\n"},
		{"open a\tb\x1b[31m: gone", "", `ublk-loop: error: open a\tb\x1b[31m: gone` + "\n"},
		{`open "a\tb": gone`, "", `ublk-loop: error: open "a\tb": gone` + "\n"},
		{"open a\nb: gone", "", `ublk-loop: error: open a\nb: gone` + "\n"},
	} {
		var out strings.Builder
		Print(&out, tt.text, tt.hint)
		if out.String() != tt.want {
			t.Errorf("%q prints as %q, want %q", tt.text, out.String(), tt.want)
		}
	}
}

// Joined errors and names with newlines are one line.
func TestErrorIsOneLine(t *testing.T) {
	var out strings.Builder
	Error(&out, errors.Join(&fs.PathError{Op: "open", Path: "/a\nb", Err: fs.ErrNotExist}, errors.New("two")))
	if want := `ublk-loop: error: open /a\nb: file does not exist; two` + "\n"; out.String() != want {
		t.Errorf("printed is %q, want %q", out.String(), want)
	}
}

// A warning is one line.
func TestWarnings(t *testing.T) {
	var out strings.Builder
	Warnings(&out, "/x\n", []string{"one", "a\x1b[31m"})
	want := `ublk-loop: warning: /x\n: one` + "\n" + `ublk-loop: warning: /x\n: a\x1b[31m` + "\n"
	if out.String() != want {
		t.Errorf("printed are %q, want %q", out.String(), want)
	}
}

// An error gets the name of its object once. A short name, or the beginning of a longer one, can be in
// the text of an error that is not about the object.
func TestName(t *testing.T) {
	for _, tt := range []struct{ text, object, want string }{
		{"no such file", "/srv/x", "do /srv/x: no such file"},
		{"open /srv/x: no such file", "/srv/x", "open /srv/x: no such file"},
		{"/srv/x has no device", "/srv/x", "/srv/x has no device"},
		{`open "/srv/x": no such file`, "/srv/x", `open "/srv/x": no such file`},
		{"open x: no such file", "x", "open x: no such file"},
		{"open /srv/x: no such file", "x", "open /srv/x: no such file"},
		{"open /srv/x/y: no such file", "x", "do x: open /srv/x/y: no such file"},
		{"open /srv/x: no such file", "/x", "do /x: open /srv/x: no such file"},
		{"x has no device", "x", "x has no device"},
		{"it has no device", "i", "do i: it has no device"},
		{"it has no device", "device", "do device: it has no device"},
		{"/dev/ublkb10 has the file", "/dev/ublkb1", "do /dev/ublkb1: /dev/ublkb10 has the file"},
		{"open /srv/x.cow: gone", "/srv/x", "do /srv/x: open /srv/x.cow: gone"},
		{"open /srv/x.cow of /srv/x", "/srv/x", "open /srv/x.cow of /srv/x"},
		{"no such file", "", "no such file"},
	} {
		if got := Name(errors.New(tt.text), "do", tt.object).Error(); got != tt.want {
			t.Errorf("%q of %q is %q, want %q", tt.text, tt.object, got, tt.want)
		}
	}
	if err := Name(nil, "do", "/srv/x"); err != nil {
		t.Errorf("no error becomes %v", err)
	}
}
