package table

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// chain returns a stack of n tables, each on the one before it.
func chain(n int) string {
	var b strings.Builder
	fmt.Fprint(&b, "t0,,,,0 8 linear /dev/a 0")
	for i := 1; i < n; i++ {
		fmt.Fprintf(&b, ";t%d,,,,0 8 linear /dev/mapper/t%d 0", i, i-1)
	}
	return b.String()
}

// wide returns a stack of n tables whose last table uses all others.
func wide(n int) string {
	var b strings.Builder
	for i := range n - 1 {
		fmt.Fprintf(&b, "t%d,,,,0 1 zero;", i)
	}
	fmt.Fprintf(&b, "top,,,,0 %d striped %d 1", n-1, n-1)
	for i := range n - 1 {
		fmt.Fprintf(&b, " /dev/mapper/t%d 0", i)
	}
	return b.String()
}

// lines returns a table of n lines.
func lines(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "%d 1 zero\n", i)
	}
	return b.String()
}

func TestLimits(t *testing.T) {
	full := "0 8 zero " + strings.Repeat(" ", MaxText)
	for name, tt := range map[string]struct{ most, tooMuch string }{
		"text":   {full[:MaxText], full[:MaxText+1]},
		"depth":  {chain(MaxDepth), chain(MaxDepth + 1)},
		"tables": {wide(MaxTables), wide(MaxTables + 1)},
		"lines":  {lines(MaxLines), lines(MaxLines + 1)},
	} {
		if _, err := Parse([]byte(tt.most), Options{}); err != nil {
			t.Errorf("most %s: %v", name, err)
		}
		if _, err := Parse([]byte(tt.tooMuch), Options{}); !errors.Is(err, ErrLimit) {
			t.Errorf("too much %s: %v", name, err)
		}
	}
}

// The time grows no faster than the text: what takes the longest for a text of
// the largest size still ends at once.
func TestHostileTextEnds(t *testing.T) {
	repeated := func(s string) string { return strings.Repeat(s, MaxText/len(s)) }
	for name, text := range map[string]string{
		"words":       "0 8 linear " + repeated("a "),
		"one word":    "0 8 linear " + repeated("a"),
		"comments":    repeated("#\n"),
		"empty lines": repeated("\n"),
		"semicolons":  repeated(";"),
		"commas":      repeated(","),
		"backslashes": repeated("\\"),
		"stripes":     "0 60000 striped 60000 1" + strings.Repeat(" /dev/mapper/a 0", 60000),
		"short lines": "a,,,," + repeated("0 1 zero,"),
		"options":     "0 8 crypt aes-xts-plain64 :64:user:a 0 /dev/a 0 9" + repeated(" integrity"),
	} {
		text = text[:min(len(text), MaxText)]
		start := ublktest.ProcessorTime(t)
		_, err := Parse([]byte(text), Options{KeysInText: true})
		if took := ublktest.ProcessorTime(t) - start; took > 5*time.Second {
			t.Errorf("%s: %v", name, took)
		}
		if err != nil {
			checkError(t, text[:100], err)
		}
	}
}

func TestNullCharacter(t *testing.T) {
	if _, err := Parse([]byte("0 8 zero \x00"), Options{}); !errors.Is(err, ErrSyntax) {
		t.Errorf("error %v", err)
	}
}

// The kernel computes the number of arguments of striped modulo 2^32. This
// number of stripes needs as many arguments as one.
func TestTooManyStripes(t *testing.T) {
	_, err := Parse([]byte("0 4294967298 striped 2147483649 2 /dev/a 0"), Options{})
	if !errors.Is(err, ErrInvalid) {
		t.Errorf("error %v", err)
	}
}

func TestLongestName(t *testing.T) {
	if _, err := Parse([]byte(strings.Repeat("n", 127)+","+strings.Repeat("u", 128)+",,,0 8 zero"), Options{}); err != nil {
		t.Error(err)
	}
}
