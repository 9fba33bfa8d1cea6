package ublktest

import (
	"os"
	"strconv"
	"testing"
)

// Repeats returns the number of repetitions, or of seconds, of a test: the value of a
// variable, or else a default for a short run and one for other runs.
func Repeats(t testing.TB, variable string, short, long int) int {
	t.Helper()
	text := os.Getenv(variable)
	switch {
	case text == "" && testing.Short():
		return short
	case text == "":
		return long
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("%s is %q, want a number above 0", variable, text)
	}
	return n
}

// Kills returns how many times a test kills something in each way, by default or from
// UBLK_LOOP_KILLS. The test must have declared the need Soak. Otherwise the tier soak, which
// kills in every way, would leave it out.
func Kills(t testing.TB, short, long int) int {
	t.Helper()
	if !declares(t, Soak) {
		t.Fatalf("%s kills something, and does not declare the need %s", t.Name(), Soak)
	}
	return Repeats(t, "UBLK_LOOP_KILLS", short, long)
}

// sampleVariable is set on a kernel that repeats tests of another kernel. Its value is a number of the
// kernel.
const sampleVariable = "UBLK_LOOP_SAMPLE"

// Sample returns the variants in which a test does something for the given row of its cases: all of them,
// or, in a short run on a kernel beside another one that has all, a single one. The next row has the next
// variant, and so has the same row on the next such kernel.
func Sample[T any](t testing.TB, row int, variants ...T) []T {
	t.Helper()
	number, beside := besideAnother(t)
	if !beside {
		return variants
	}
	i := (row + number) % len(variants)
	return variants[i : i+1]
}

// Fewer returns how many times a test does something: all times, or few times in a short run on a kernel
// beside another one that does it all times.
func Fewer(t testing.TB, all, few int) int {
	t.Helper()
	if _, beside := besideAnother(t); beside {
		return few
	}
	return all
}

// besideAnother reports whether this is a short run on a kernel that repeats tests of another kernel, and
// returns the number of the kernel.
func besideAnother(t testing.TB) (number int, is bool) {
	t.Helper()
	text := os.Getenv(sampleVariable)
	if text == "" || !testing.Short() {
		return 0, false
	}
	number, err := strconv.Atoi(text)
	if err != nil || number < 0 {
		t.Fatalf("%s is %q, want a number", sampleVariable, text)
	}
	return number, true
}
