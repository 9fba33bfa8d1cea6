package ublk

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

var (
	// ErrNoDriver is returned by OpenControl if there is no /dev/ublk-control, because
	// the module ublk_drv is not loaded or the kernel lacks it.
	ErrNoDriver = errors.New("the ublk driver is not loaded")
	// ErrNoSysfs is returned by List if sysfs is not mounted at /sys. Without it there would
	// seem to be no devices.
	ErrNoSysfs = errors.New("/sys is not mounted")
	// ErrNotSupported is returned if the driver lacks what the caller requests.
	ErrNotSupported = errors.New("not supported by this kernel")
	// ErrNeedsCopy is returned by Start for a device of a zero-copy mode if the handler
	// is not a Completer, because it cannot reach a request's bytes.
	ErrNeedsCopy = errors.New("the handler needs copy mode")
	// ErrCompleted is the error of a device whose handler completes a request that it
	// does not have: a second time, or after Async.
	ErrCompleted = errors.New("the handler does not have the request")
	// ErrControlHung is returned for a command that the kernel neither answers in time
	// nor interrupts. Until that command ends, other commands for the same device that
	// have a time limit return it too. Add without an id returns it while 16 such
	// commands hang.
	ErrControlHung = errors.New("a ublk control command hangs")
	// ErrLingers is returned by Delete for a device that is gone, but whose id and
	// memory the driver keeps until the last user closes it.
	ErrLingers = errors.New("deleted, but still open somewhere")
	// ErrNotRecoverable is returned by Recover for a device that does not outlive its
	// server, or has lost its disk.
	ErrNotRecoverable = errors.New("not recoverable")
	// ErrServed is returned for a device that could not be ended, and that this process
	// still serves.
	ErrServed = errors.New("still served by this process")
	// ErrClosed is returned by operations on a Device or Control after Close.
	ErrClosed = errors.New("closed")
	// ErrKilled is the error of a device that was ended without an answer to its
	// requests.
	ErrKilled = errors.New("device killed")
)

// Result returns the result of a request that fails with an error: the negated errno that
// the error wraps, or -EIO if it wraps none. Errno numbers that the kernel uses only
// internally (512 and up) also become -EIO.
func Result(err error) int32 {
	errno, bare := err.(unix.Errno) //nolint:errorlint // a bare errno takes no allocation, and errors.As does
	if !bare {
		errno = wrappedErrno(err)
	}
	if errno == 0 || errno >= 512 {
		errno = unix.EIO
	}
	return -int32(errno)
}

// wrappedErrno returns the errno that an error wraps, or 0 if it wraps none.
func wrappedErrno(err error) unix.Errno {
	var errno unix.Errno
	_ = errors.As(err, &errno)
	return errno
}

// wrap adds what was attempted to an error. It returns nil for nil.
func wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}
