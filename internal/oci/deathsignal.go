package oci

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// deathSignal is what this process gets when its parent ends, 0 for none: SIGKILL
// where a shim is the parent. The kernel has it for each thread, and takes that of
// the thread which executes a program for the program's. Packages are initialized
// on the main thread, which has the one that the parent set.
var deathSignal = parentDeathSignal()

func parentDeathSignal() uintptr {
	var signal int32
	// The kernel writes an int there (PR_GET_PDEATHSIG in kernel/sys.c). The variable
	// stays where it is during the call: the conversion is in the list of arguments
	// of a function in assembly (pattern 4 of unsafe.Pointer).
	if _, _, errno := unix.Syscall(unix.SYS_PRCTL, unix.PR_GET_PDEATHSIG, uintptr(unsafe.Pointer(&signal)), 0); errno != 0 {
		return 0
	}
	return uintptr(signal)
}

// keepDeathSignal has what the calling thread executes get the same signal. Until
// then the main thread has it, so that no end of the parent is missed.
func keepDeathSignal() error {
	return os.NewSyscallError("prctl", unix.Prctl(unix.PR_SET_PDEATHSIG, deathSignal, 0, 0, 0))
}
