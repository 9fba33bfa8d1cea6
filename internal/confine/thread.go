package confine

import (
	"fmt"
	"runtime"
	"slices"

	"golang.org/x/sys/unix"
)

// confine gives the calling thread the privileges and the surroundings of a server. The
// thread or a child of it then executes the server's program, and all threads of the
// program inherit them. The program cannot do this itself, because Go starts threads
// before main. The caller must have locked the thread and let it end. The warnings name
// protections that are not available.
func confine(m Manager, keep, start []int) (warnings []string, err error) {
	if err := resetInherited(m); err != nil {
		return nil, err
	}
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return nil, fmt.Errorf("leave the working directory: %w", err)
	}
	if err := unshareMounts(); err != nil {
		return nil, err
	}
	if err := unix.Chdir("/"); err != nil {
		return nil, fmt.Errorf("change to /: %w", err)
	}
	unix.Umask(0o077)
	// While the server allocates memory, the kernel must not write to the server's own
	// device to free some (Linux 5.6; needs CAP_SYS_RESOURCE).
	if err := unix.Prctl(unix.PR_SET_IO_FLUSHER, 1, 0, 0, 0); err != nil {
		warnings = append(warnings, fmt.Sprintf("not an I/O flusher, may deadlock without free memory: %v", err))
	}
	// Otherwise Go's heap would begin with a huge page of 2 MiB, of which a server uses
	// only a part. Buffers ask for huge pages explicitly (Linux 6.18; earlier kernels
	// ignore the option).
	_ = unix.Prctl(unix.PR_SET_THP_DISABLE, 1, unix.PR_THP_DISABLE_EXCEPT_ADVISED, 0, 0)
	if err := unblockSignals(); err != nil {
		return nil, err
	}
	if err := dropCapabilities(keep, start); err != nil {
		return nil, err
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("set no_new_privs: %w", err)
	}
	return warnings, nil
}

func unblockSignals() error {
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &unix.Sigset_t{}, nil); err != nil {
		return fmt.Errorf("unblock signals: %w", err)
	}
	return nil
}

// Starts says whether a server starts a process without privileges.
type Starts int

// These are the values of Starts.
const (
	StartsNothing Starts = iota
	StartsOnce           // the server has the capabilities for it until DropStarting
	StartsAgain          // the server and the program that replaces it have them
)

// OnThread calls execute, which executes a server, on a confined thread. The thread ends
// afterwards.
func OnThread(m Manager, starts Starts, execute func(warnings []string) error) error {
	result := make(chan error)
	go func() {
		// Without an unlock, the thread ends with this goroutine.
		runtime.LockOSThread()
		keep, start := keptCapabilities[:], []int(nil)
		switch starts {
		case StartsOnce:
			keep, start = append(keep, killCapability), startingCapabilities
		case StartsAgain:
			keep = slices.Concat(keep, []int{killCapability}, startingCapabilities)
		}
		warnings, err := confine(m, keep, start)
		if err == nil {
			err = execute(warnings)
		}
		result <- err
	}()
	return <-result
}
