package table

import (
	"errors"
	"strings"
	"testing"
)

// A stack whose last line is linear or crypt over a file or disk can have another size.
func TestResize(t *testing.T) {
	for text, want := range map[string]string{
		"0 8 linear /a 5":                             "0 80 linear /a 5\n",
		"0 8 zero\n8 200 linear /a 0":                 "0 8 zero \n8 72 linear /a 0\n",
		"0 8 linear /a 0\n8 8 zero":                   "",
		"0 8 crypt aes-xts-plain64 :64:user:k 4 /a 5": "0 80 crypt aes-xts-plain64 :64:user:k 4 /a 5\n",
		"l,,,,0 8 zero;t,,,,0 8 crypt aes-xts-plain64 :64:user:k 4 /dev/mapper/l 0": "",
		"0 8 striped 1 8 /a 0":                                                "",
		"l,,,,0 8 zero;t,,,,0 8 linear /dev/mapper/l 0":                       "",
		"l,,,,0 8 zero;t,,,,0 8 linear /dev/mapper/l 0,8 8 linear /dev/sda 2": "l,,,rw,0 8 zero ;t,,,rw,0 8 linear /dev/mapper/l 0,8 72 linear /dev/sda 2",
	} {
		s, err := Parse([]byte(text), Options{})
		if err != nil {
			t.Fatal(err)
		}
		err = s.Resize(80)
		if want == "" {
			if !errors.Is(err, ErrUnsupported) || s.Resizable() != nil {
				t.Errorf("%s: %v", text, err)
			}
			continue
		}
		if err != nil || s.Text() != want || s.Sectors() != 80 {
			t.Errorf("%s: %q, %d sectors, %v", text, s.Text(), s.Sectors(), err)
		}
		start := s.Resizable().Start
		if err := s.Resize(start); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: no last line: %v", text, err)
		}
		if err := s.Resize(MaxSectors + 1); !errors.Is(err, ErrLimit) {
			t.Errorf("%s: more than all sectors: %v", text, err)
		}
		if s.Sectors() != 80 {
			t.Errorf("%s: a refused size changed it to %d sectors", text, s.Sectors())
		}
	}
}

// An error of a size says which size, and which line it leaves nothing of.
func TestResizeErrorSaysWhy(t *testing.T) {
	s, err := Parse([]byte("0 8 zero\n8 200 linear /a 0"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	want := "5 sectors: the last line starts at 8: "
	if err := s.Resize(5); err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("error %v, want %s", err, want)
	}
}

// A line with crypt keeps whole encrypted sectors.
func TestResizeCrypt(t *testing.T) {
	s, err := Parse([]byte("0 8 crypt aes-xts-plain64 :64:user:k 0 /a 0 1 sector_size:4096"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Resize(81); !errors.Is(err, ErrInvalid) || s.Sectors() != 8 {
		t.Errorf("%d sectors, error %v", s.Sectors(), err)
	}
}
