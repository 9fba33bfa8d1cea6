package ublktest

import (
	"flag"
	"fmt"
	"testing"
)

// A short run on a kernel beside others has one variant of each row. Two rows, or two such kernels, have
// all of two variants. It repeats things less often.
func TestSample(t *testing.T) {
	was := flag.Lookup("test.short").Value.String()
	t.Cleanup(func() { _ = flag.Set("test.short", was) })
	for _, c := range []struct {
		short, sample string
		row           int
		want          string
	}{
		{"true", "", 0, "[a b c]"},
		{"false", "0", 0, "[a b c]"},
		{"true", "0", 0, "[a]"},
		{"true", "0", 1, "[b]"},
		{"true", "1", 0, "[b]"},
		{"true", "1", 2, "[a]"},
	} {
		if err := flag.Set("test.short", c.short); err != nil {
			t.Fatal(err)
		}
		t.Setenv(sampleVariable, c.sample)
		got := Sample(t, c.row, "a", "b", "c")
		if fmt.Sprint(got) != c.want {
			t.Errorf("%+v: %s", c, got)
		}
		if n := Fewer(t, 5, 2); n == 2 != (len(got) == 1) {
			t.Errorf("%+v: %d times, and %d variants", c, n, len(got))
		}
	}
}
