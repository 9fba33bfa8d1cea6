package ring

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// This file has only the three system calls of io_uring.
//
// Each unsafe.Pointer below is converted to uintptr in the argument list of the
// system call itself. Only in this form does the garbage collector keep the
// object alive and in place for the call (rule 4 of package unsafe).

// ioURingSetup is io_uring_setup(2).
func ioURingSetup(entries uint32, p *ioUringParams) (int, error) {
	fd, _, errno := syscall.Syscall(unix.SYS_IO_URING_SETUP, uintptr(entries), uintptr(unsafe.Pointer(p)), 0)
	if errno != 0 {
		return -1, errno
	}
	return int(fd), nil
}

// ioURingEnter is io_uring_enter(2). It can block, so it informs Go's
// scheduler.
func ioURingEnter(fd int, toSubmit, minComplete, flags uint32, arg unsafe.Pointer, size uintptr) (uint32, syscall.Errno) {
	n, _, errno := syscall.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(fd), uintptr(toSubmit),
		uintptr(minComplete), uintptr(flags), uintptr(arg), size)
	return uint32(n), errno
}

// ioURingRegister is io_uring_register(2).
func ioURingRegister(fd int, opcode uint32, arg unsafe.Pointer, nrArgs uint32) error {
	_, _, errno := syscall.Syscall6(unix.SYS_IO_URING_REGISTER, uintptr(fd), uintptr(opcode),
		uintptr(arg), uintptr(nrArgs), 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}
