package table

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// A key from the text is in a Secret, and printed by its name.
func TestKeyInText(t *testing.T) {
	for _, digits := range []string{hexKey, strings.ToUpper(hexKey), hexKey[:64]} {
		text := []byte("0 8 crypt aes-xts-plain64 " + digits + " 0 /dev/a 0")
		if _, err := Parse(text, Options{}); !errors.Is(err, ErrKeyInText) {
			t.Errorf("without KeysInText: %v", err)
		}
		s, err := Parse(text, Options{KeysInText: true})
		if err != nil {
			t.Fatal(err)
		}
		want, err := hex.DecodeString(digits)
		if err != nil {
			t.Fatal(err)
		}
		c, ok := s.Tables[0].Lines[0].Target.(*Crypt)
		if !ok {
			t.Fatalf("target %T", s.Tables[0].Lines[0].Target)
		}
		if got := c.Key.Secret.Bytes(); !bytes.Equal(got, want) {
			t.Errorf("key %x", got)
		}
		for name, printed := range map[string]string{"lines": s.Tables[0].String(), "concise": s.Concise()} {
			if strings.Contains(printed, digits[32:]) || !strings.Contains(printed, ":user:ublk-loop ") {
				t.Errorf("%s: %s", name, printed)
			}
		}
		s.Close()
		if c.Key.Secret != nil {
			t.Error("key is not closed")
		}
	}
}

// Each key from the text has a name of its own, which the text does not use for another key. The
// printed text keeps the names.
func TestNamesOfKeys(t *testing.T) {
	crypt := func(at int, key string) string {
		return fmt.Sprintf("%d 8 crypt aes-xts-plain64 %s 0 /dev/a 0", at, key)
	}
	text := "a,,,," + crypt(0, ":64:user:ublk-loop") + "," + crypt(8, hexKey) + ";b,,,,0 8 linear /dev/mapper/a 0," +
		crypt(8, hexKey[:64]) + "," + crypt(16, ":32:user:ublk-loop:3") + "," + crypt(24, hexKey)
	s, err := Parse([]byte(text), Options{KeysInText: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var names []string
	for i := range s.Tables {
		for _, l := range s.Tables[i].Lines {
			if c, ok := l.Target.(*Crypt); ok {
				names = append(names, string(c.Key.append(nil)))
			}
		}
	}
	want := ":64:user:ublk-loop :64:user:ublk-loop:2 :32:user:ublk-loop:4 :32:user:ublk-loop:3 :64:user:ublk-loop:5"
	if got := strings.Join(names, " "); got != want {
		t.Errorf("keys %s, want %s", got, want)
	}
	again, err := Parse([]byte(s.Text()), Options{})
	if err != nil || again.Text() != s.Text() {
		t.Errorf("the printed text gives %v, error %v", again, err)
	}
}

// The key of a table that is refused after the key was read is closed, in the
// concise format too, and the copy of the text is wiped.
func TestKeyOfRefusedTable(t *testing.T) {
	for _, text := range []string{
		"0 8 crypt aes-xts-plain64 $H x /dev/a 0",
		"0 9 crypt aes-xts-plain64 $H 0 /dev/a 0 1 sector_size:4096",
		"0 8 crypt aes-xts-plain64 $H 0 /dev/a 0\n8 8 nope",
		"a,,,,0 8 crypt aes-xts-plain64 $H 0 /dev/a 0;b,,,,0 8 zero",
	} {
		before := lockedBytes(t)
		for range 8 {
			if _, err := Parse([]byte(withDevices(text, "", "")), Options{KeysInText: true}); err == nil {
				t.Fatalf("%q is accepted", text)
			}
		}
		if after := lockedBytes(t); after != before {
			t.Errorf("%q: %d bytes of locked memory are left", text, after-before)
		}
	}
}

// A missing blank or comma does not make a part of a key appear in the error.
func TestErrorsWithoutKey(t *testing.T) {
	for _, text := range []string{
		"0 8 $H/dev/a",
		"0 8 crypt $H/dev/a 0 /dev/a 0 0",
		"0 8 crypt aes-xts-plain64 :64:user:x $H/dev/a 0 0",
		"0 8 linear /dev/a $H/dev/b",
		"0 8 verity 1 /dev/a /dev/a 4096 4096 1 0 $H 00 -",
		"$H 0 /dev/a 0,,,,0 8 zero",
		"a,crypt aes-xts-plain64 $H 0 /dev/a 0,,,0 8 zero",
		"a,,crypt aes-xts-plain64 $H 0 /dev/a 0,,0 8 zero",
		"a,,,crypt aes-xts-plain64 $H 0 /dev/a 0,0 8 zero",
		"a,,,,0 8 crypt aes-xts-plain64 :64:user:$H/x 0 /dev/a x",
	} {
		_, err := Parse([]byte(withDevices(text, "", "")), Options{KeysInText: true})
		if err == nil {
			t.Fatalf("%q is accepted", text)
		}
		checkError(t, text, err)
	}
}

// The copy of a concise text is wiped.
func TestConciseWipesItsCopy(t *testing.T) {
	text := []byte("a,,,,0 8 crypt aes-xts-plain64 " + hexKey + " 0 /dev/a 0")
	p := parser{opts: Options{KeysInText: true}, stack: &Stack{}}
	if err := p.concise(text); err != nil {
		t.Fatal(err)
	}
	defer p.stack.Close()
	if all := p.split.buf[:cap(p.split.buf)]; len(all) < len(text) || !bytes.Equal(all, make([]byte, len(all))) {
		t.Errorf("left: %q", all)
	}
}

// lockedBytes returns how much memory of the process is locked.
func lockedBytes(t *testing.T) int {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "VmLck:")
	var kib int
	if _, err := fmt.Sscan(rest, &kib); err != nil {
		t.Fatal(err)
	}
	return kib << 10
}

// The targets of a type come in the order of the text, each with its place. A loop over them can end
// early.
func TestTargets(t *testing.T) {
	crypt := "crypt aes-xts-plain64 :32:user:a 0 /dev/a 0"
	s, err := Parse([]byte("a,,,,0 8 "+crypt+",8 8 linear /dev/a 0;b,,,,0 8 linear /dev/mapper/a 0,8 8 "+crypt), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var places []string
	for place := range Targets[*Crypt](s) {
		places = append(places, place.Wrap(ErrInvalid).Error())
	}
	want := []string{"table a: line 1: crypt: invalid", "table b: line 2: crypt: invalid"}
	if !slices.Equal(places, want) || s.KeyBytes() != 64 {
		t.Errorf("lines with crypt are %q with %d bytes of keys, want %q with 64", places, s.KeyBytes(), want)
	}
	if !Has[*Linear](s) || Has[*Snapshot](s) {
		t.Errorf("it has linear: %v, snapshot: %v", Has[*Linear](s), Has[*Snapshot](s))
	}
}
