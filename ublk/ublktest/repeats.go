package ublktest

import (
	"os"
	"strconv"
	"testing"
)

// Repeats returns how often a test repeats something, or for how many seconds:
// the value of a variable, else one number for a short run and one for others.
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

// Kills returns how often a test kills something in each way: UBLK_LOOP_KILLS
// times.
func Kills(t testing.TB, short, long int) int {
	t.Helper()
	return Repeats(t, "UBLK_LOOP_KILLS", short, long)
}
