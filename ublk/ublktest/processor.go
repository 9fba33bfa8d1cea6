package ublktest

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// ProcessorTime returns the time of the processor that this process has used. Unlike the time that
// passes, other programs on the machine hardly change it.
func ProcessorTime(t testing.TB) time.Duration {
	t.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
