package report

import (
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// IsTerminal reports whether a file is a terminal.
func IsTerminal(file *os.File) bool {
	_, err := unix.IoctlGetTermios(int(file.Fd()), unix.TCGETS)
	return err == nil
}

// MayBeClosed reports whether the program was started with a closed file in place of out. Go's
// runtime then opens /dev/null in its place, for reading and writing (checkfds in
// runtime/fds_unix.go), so that no write fails and the output is lost. A few programs open
// /dev/null in the same way to discard the output. A shell opens it for writing only. out can also be
// a writer with the method Unwrap.
func MayBeClosed(out io.Writer) bool {
	if wrapper, ok := out.(interface{ Unwrap() io.Writer }); ok {
		out = wrapper.Unwrap()
	}
	file, ok := out.(*os.File)
	if !ok {
		return false
	}
	var st unix.Stat_t
	flags, err := unix.FcntlInt(file.Fd(), unix.F_GETFL, 0)
	if err != nil || flags&unix.O_ACCMODE != unix.O_RDWR || unix.Fstat(int(file.Fd()), &st) != nil {
		return false
	}
	return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == unix.Mkdev(1, 3)
}
