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

// receiveNotification waits for a call. It returns io.EOF when no process is left that could make one, and an error that
// wraps ENOENT if the caller was killed meanwhile.
func receiveNotification(listener *os.File) (*notification, error) {
	conn, err := listener.SyscallConn()
	if err != nil {
		return nil, err
	}
	n := &notification{}
	received := error(unix.EAGAIN)
	waited := conn.Read(func(fd uintptr) (done bool) {
		received = n.receive(int(fd), 0)
		return !errors.Is(received, unix.EAGAIN)
	})
	// If a signal came when Go's poller asked the kernel, the kernel says that the descriptor has an error, and the poller
	// does not wait for it (seccomp_notify_poll in kernel/seccomp.c). Then a thread waits.
	for errors.Is(received, unix.EAGAIN) {
		if waited = conn.Control(func(fd uintptr) { received = n.receive(int(fd), -1) }); waited != nil {
			break
		}
	}
	return n, errors.Join(waited, received)
}

// receive waits for a call for some milliseconds, or without end if that is negative. It returns EAGAIN if no call waits. The
// command itself would wait, also in a descriptor that does not block.
func (n *notification) receive(listener, milliseconds int) error {
	fds := []unix.PollFd{{Fd: int32(listener), Events: unix.POLLIN}}
	err := eintr.Repeat(func() error {
		_, err := unix.Poll(fds, milliseconds)
		return err
	})
	switch events := fds[0].Revents; {
	case err != nil:
		return os.NewSyscallError("poll", err)
	case events&unix.POLLIN != 0:
		_, err := ioctl(listener, unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(n))
		return err
	case events&(unix.POLLHUP|unix.POLLNVAL) != 0:
		return io.EOF
	}
	return unix.EAGAIN // also after POLLERR: a signal came while the kernel waited for its lock
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
