package ublktest

import (
	"errors"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// ObeyModes makes the rest of a test obey the modes of files, also if it runs as root. The thread
// ends with the test, which must not be parallel.
func ObeyModes(t testing.TB) {
	t.Helper()
	runtime.LockOSThread()
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	err := unix.Capget(&header, &sets[0])
	sets[0].Effective &^= 1<<unix.CAP_DAC_OVERRIDE | 1<<unix.CAP_DAC_READ_SEARCH
	if err := errors.Join(err, unix.Capset(&header, &sets[0])); err != nil {
		t.Fatal(err)
	}
}
