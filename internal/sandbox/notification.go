package sandbox

import (
	"errors"
	"io"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/eintr"
)

// This file has the messages about system calls that wait for an answer (seccomp_unotify(2)). Each unsafe.Pointer is to a
// structure of the size that the kernel's command has in its number, and is converted in the argument list of the system call
// (rule 4 of package unsafe).

// notification is struct seccomp_notif of linux/seccomp.h, with its struct seccomp_data: a call that waits.
type notification struct {
	ID   uint64
	_    [2]uint32 // process, flags
	_    [2]uint32 // number of the call, architecture
	_    uint64    // address of the instruction
	Args [6]uint64
}

// notificationAnswer is struct seccomp_notif_resp.
type notificationAnswer struct {
	ID    uint64
	Val   int64
	Error int32 // negative
	Flags uint32
}

// notificationFD is struct seccomp_notif_addfd.
type notificationFD struct {
	ID         uint64
	Flags      uint32
	SrcFD      uint32
	NewFD      uint32
	NewFDFlags uint32
}

// poll is unix.Poll, except in tests.
var poll = unix.Poll

// awaitNotification waits for a call, or until stop can be read. It returns io.EOF when no process is left that could make a
// call, and after the stop.
//
// A thread waits, and not Go's poller. If a signal comes while the kernel waits for a lock, a poll of the listener says that it has
// an error, and not whether a call waits (seccomp_notify_poll in kernel/seccomp.c). Go's poller would not ask again.
func awaitNotification(listener, stop int) error {
	for {
		fds := []unix.PollFd{{Fd: int32(listener), Events: unix.POLLIN}, {Fd: int32(stop), Events: unix.POLLIN}}
		err := eintr.Repeat(func() error {
			_, err := poll(fds, -1)
			return err
		})
		switch events := fds[0].Revents; {
		case err != nil:
			return os.NewSyscallError("poll", err)
		case fds[1].Revents != 0:
			return io.EOF
		case events&unix.POLLIN != 0:
			return nil
		case events&(unix.POLLHUP|unix.POLLNVAL) != 0:
			return io.EOF
		}
	}
}

// receiveNotification returns a call that waits. It returns an error that wraps ENOENT if the caller was killed meanwhile.
func receiveNotification(listener *os.File) (*notification, error) {
	n := &notification{}
	_, err := control(listener, unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(n))
	return n, err
}

// add copies a descriptor to the process, and returns its number there. The copy closes at an exec.
func (n *notification) add(listener *os.File, fd int) (int, error) {
	add := notificationFD{ID: n.ID, SrcFD: uint32(fd), NewFDFlags: unix.O_CLOEXEC}
	return control(listener, unix.SECCOMP_IOCTL_NOTIF_ADDFD, unsafe.Pointer(&add))
}

// accept ends the call with a result.
func (n *notification) accept(listener *os.File, result int) error {
	answer := notificationAnswer{ID: n.ID, Val: int64(result)}
	_, err := control(listener, unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&answer))
	return err
}

// refuse ends the call with an error.
func (n *notification) refuse(listener *os.File, why unix.Errno) error {
	answer := notificationAnswer{ID: n.ID, Error: -int32(why)}
	_, err := control(listener, unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&answer))
	return err
}

// control carries out a command on the listener.
func control(listener *os.File, command uintptr, argument unsafe.Pointer) (result int, err error) {
	conn, err := listener.SyscallConn()
	if err != nil {
		return -1, err
	}
	var done error
	err = conn.Control(func(fd uintptr) { result, done = ioctl(int(fd), command, argument) })
	return result, errors.Join(err, done)
}

// ioctl is ioctl(2).
func ioctl(fd int, command uintptr, argument unsafe.Pointer) (result int, err error) {
	err = eintr.Repeat(func() error {
		r, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), command, uintptr(argument))
		if errno != 0 {
			return os.NewSyscallError("ioctl", errno)
		}
		result = int(r)
		return nil
	})
	return result, err
}
