package backing

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/eintr"
	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/loop/internal/process"
)

// OpenPath finds the file or disk at path, once: what it returns is the object
// itself (an O_PATH descriptor), whatever a link or a directory on the way is
// changed to later. The Name of the result is the object's absolute path with
// every link resolved. It takes no lock and neither reads nor writes.
//
// It returns EISDIR for a directory, EINVAL for what else is neither a regular
// file nor a block device, ELOOP for a link of /proc/PID/fd (/dev/stdin).
func OpenPath(path string) (*os.File, error) {
	fd, err := openOPath(path)
	if err == nil {
		err = checkFile(fd)
	}
	if err != nil {
		return nil, pathError(path, err)
	}
	name, err := os.Readlink(ProcPath(fd))
	if err != nil {
		_ = unix.Close(fd)
		if noProc := process.CheckProc(); noProc != nil {
			err = noProc
		}
		return nil, pathError(path, fmt.Errorf("resolve: %w", err))
	}
	return os.NewFile(uintptr(fd), name), nil
}

// OpenPathIn is OpenPath for a path below a directory that is taken for the
// root, as chroot(2) does: what is mounted there is found whatever namespace
// this process is in (RESOLVE_IN_ROOT in openat2(2), Linux 5.6). The Name of
// the result is the path.
func OpenPathIn(root *os.File, path string) (*os.File, error) {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	defer runtime.KeepAlive(root)
	fd, err := unix.Openat2(int(root.Fd()), path, &how)
	for errors.Is(err, unix.EINTR) {
		fd, err = unix.Openat2(int(root.Fd()), path, &how)
	}
	if err == nil {
		err = checkFile(fd)
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

// checkFile closes a descriptor of what cannot be attached.
func checkFile(fd int) error {
	err := checkKind(fd)
	if err != nil {
		_ = unix.Close(fd)
	}
	return err
}

// pathError names the object of an error as the user did, absolutely.
func pathError(path string, err error) error {
	if abs, absErr := filepath.Abs(path); absErr == nil {
		path = abs
	}
	return fmt.Errorf("open %s: %w", path, err)
}

// openOPath opens path without opening what is there (openat2(2); Linux 5.6,
// and plain open where a container's filter does not know it).
func openOPath(path string) (int, error) {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_MAGICLINKS}
	for {
		fd, err := unix.Openat2(unix.AT_FDCWD, path, &how)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.ENOSYS):
			return unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
		case errors.Is(err, unix.ELOOP):
			return -1, hint.Add(err, "name the file itself, not a link to an open descriptor")
		}
		return fd, err
	}
}

// kindNames are what cannot be attached.
var kindNames = map[uint32]string{
	unix.S_IFIFO:  "a FIFO",
	unix.S_IFCHR:  "a character device",
	unix.S_IFSOCK: "a socket",
	unix.S_IFLNK:  "a symbolic link",
}

func checkKind(fd int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("stat: %w", err)
	}
	switch kind := st.Mode & unix.S_IFMT; kind {
	case unix.S_IFREG, unix.S_IFBLK:
		return nil
	case unix.S_IFDIR:
		return unix.EISDIR
	default:
		return fmt.Errorf("%s, neither a file nor a disk: %w", kindNames[kind], unix.EINVAL)
	}
}

// ProcPath names an open descriptor so that it can be opened again.
func ProcPath(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }

// reopen opens the object of an O_PATH descriptor for I/O. It does not wait for the
// holder of a lease on a file (F_SETLEASE in fcntl(2)), which any owner of the file may
// be for 45 seconds: it returns an error that wraps EAGAIN.
func reopen(file *os.File, flags int) (int, error) {
	defer runtime.KeepAlive(file)
	path := ProcPath(int(file.Fd()))
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil {
		return -1, fmt.Errorf("stat: %w", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return openFile(path, flags)
	}
	fd, err := openFile(path, flags|unix.O_NONBLOCK)
	if errors.Is(err, unix.EAGAIN) {
		err := fmt.Errorf("another program has a lease on it, and is asked to give it up: %w", err)
		return -1, hint.Add(err, "try again; the kernel ends the lease after /proc/sys/fs/lease-break-time")
	}
	if err != nil {
		return -1, err
	}
	// With the flag, io_uring fails what would wait.
	if err := clearNonblock(fd); err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func openFile(path string, flags int) (fd int, err error) {
	err = eintr.Repeat(func() error {
		fd, err = unix.Open(path, flags|unix.O_CLOEXEC, 0)
		return err
	})
	return fd, err
}

func clearNonblock(fd int) error {
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_SETFL, flags&^unix.O_NONBLOCK)
	}
	return err
}

// reopenQuietly is reopen for a file whose access time stays as it is: a read
// of the device would otherwise be a write to the file system, too. That is
// refused for a file of another owner without CAP_FOWNER (open(2)), and does
// without then.
func reopenQuietly(file *os.File, flags int) (int, error) {
	fd, err := reopen(file, flags|unix.O_NOATIME)
	if errors.Is(err, unix.EPERM) {
		return reopen(file, flags)
	}
	return fd, err
}
