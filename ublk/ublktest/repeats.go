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
// UBLK_LOOP_KILLS.
func Kills(t testing.TB, short, long int) int {
	t.Helper()
	return Repeats(t, "UBLK_LOOP_KILLS", short, long)
}
