package ublk

import (
	"errors"

	"golang.org/x/sys/unix"
)

var (
	// ErrNoDriver is returned by OpenControl when there is no
	// /dev/ublk-control: the module ublk_drv is not loaded, or the kernel has
	// none.
	ErrNoDriver = errors.New("the ublk driver is not loaded")
	// ErrNotSupported is returned when the driver lacks what was asked for.
	ErrNotSupported = errors.New("not supported by this kernel")
	// ErrNeedsCopy is returned by Start for a device of a zero-copy mode whose
	// handler is no Completer: it has no way to a request's bytes.
	ErrNeedsCopy = errors.New("the handler needs copy mode")
	// ErrCompleted is what a device ends with when its handler completes a
	// request that it does not have: a second time, or after Async.
	ErrCompleted = errors.New("the handler does not have the request")
	// ErrControlHung is returned for a command that the kernel did not answer
	// in time, nor let itself be interrupted, and for all commands after 16 of
	// these: the process can do nothing more about its devices then, which go
	// when it exits.
	ErrControlHung = errors.New("a ublk control command hangs")
	// ErrLingers is returned by Delete for a device that is gone, but whose id
	// and memory the driver keeps until the last user closes it.
	ErrLingers = errors.New("deleted, but still open somewhere")
	// ErrNotRecoverable is returned by Recover for a device that does not
	// outlive its server, or has no disk any more.
	ErrNotRecoverable = errors.New("not recoverable")
	// ErrServed is returned for a device that this process goes on to serve,
	// though it was to end.
	ErrServed = errors.New("still served by this process")
	// ErrClosed is returned by operations on a Device or Control after Close.
	ErrClosed = errors.New("closed")
	// ErrKilled is what a device ends with when it was torn down without
	// waiting for its requests.
	ErrKilled = errors.New("device killed")
)

// Result returns what a request is completed with for an error: the negated
// errno that the error wraps, -EIO when it wraps none. Errno numbers that the
// kernel keeps to itself (512 and up) become -EIO too.
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

// wrappedErrno returns the errno that an error wraps, 0 for none.
func wrappedErrno(err error) unix.Errno {
	var errno unix.Errno
	_ = errors.As(err, &errno)
	return errno
}
