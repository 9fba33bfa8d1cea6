package process

import "golang.org/x/sys/unix"

// CheckInherited returns EBADF unless the starter of this process has passed the descriptor. A
// number that the starter has not passed can belong to a descriptor of the Go runtime, and a read
// of that never returns. Go opens all of its descriptors with FD_CLOEXEC, and no such descriptor
// can be inherited.
func CheckInherited(fd int) error {
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	if err == nil && flags&unix.FD_CLOEXEC != 0 {
		err = unix.EBADF
	}
	return err
}
