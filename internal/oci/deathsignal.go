package oci

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// deathSignal is the signal that this process gets when its parent ends, 0 for none. A
// shim sets SIGKILL. The kernel keeps the signal for each thread, and an executed program
// gets the signal of the thread that executed it. Packages are initialized on the main
// thread, whose signal the parent has set.
var deathSignal = parentDeathSignal()

func parentDeathSignal() uintptr {
	var signal int32
	// The kernel writes an int (PR_GET_PDEATHSIG in kernel/sys.c). The variable does not
	// move during the call, because the conversion is in the argument list of an assembly
	// function (pattern 4 of unsafe.Pointer).
	if _, _, errno := unix.Syscall(unix.SYS_PRCTL, unix.PR_GET_PDEATHSIG, uintptr(unsafe.Pointer(&signal)), 0); errno != 0 {
		return 0
	}
	return uintptr(signal)
}

// keepDeathSignal sets the same signal for the calling thread, and so for the program
// that it executes. Until then the main thread keeps the signal, so that the end of the
// parent cannot be missed.
func keepDeathSignal() error {
	return os.NewSyscallError("prctl", unix.Prctl(unix.PR_SET_PDEATHSIG, deathSignal, 0, 0, 0))
}
