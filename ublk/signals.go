package ublk

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// threadSignals are the signals that a thread with queues still takes: those that its own instructions
// raise, which the kernel does not leave blocked anyway (force_sig_info_to_task in kernel/signal.c), and the
// one with which Go runs a system call in all threads (sigPerThreadSyscall in runtime/os_linux.go), which waits
// for an answer.
var threadSignals = [...]unix.Signal{
	unix.SIGBUS, unix.SIGFPE, unix.SIGILL, unix.SIGSEGV, unix.SIGSYS, unix.SIGTRAP, unix.Signal(33),
}

// blockSignals blocks the other signals in the calling thread. When a signal arrives, the kernel writes the
// processor's registers to a stack of Go's runtime, in ordinary memory (rt_sigframe in
// arch/x86/kernel/signal.c). Handlers that encrypt have keys in registers, and nothing would wipe
// them there. Go's runtime sends a signal to preempt a goroutine (SIGURG); without it the goroutine ends its
// turn at its next call of a function.
func blockSignals() error {
	var set unix.Sigset_t
	for i := range set.Val {
		set.Val[i] = ^set.Val[i]
	}
	for _, s := range threadSignals {
		bit := uint(s - 1)
		set.Val[bit/wordBits] &^= 1 << (bit % wordBits)
	}
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &set, nil); err != nil {
		return fmt.Errorf("block signals: %w", err)
	}
	return nil
}

// wordBits is the number of signals in a word of a set of signals, on all 64-bit processors.
const wordBits = 64
