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
	"github.com/ublk-loop/ublk-loop/internal/process"
)

// OpenPath finds the file or disk at path. It resolves the path once: the result is the
// object itself (an O_PATH descriptor), even if a link or a directory of the path changes
// later. The Name of the result is the object's absolute path with every link resolved.
// OpenPath takes no lock and neither reads nor writes.
//
// It returns EISDIR for a directory, EINVAL for other types that are neither a regular
// file nor a block device, and ELOOP for a link of /proc/PID/fd (/dev/stdin).
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

// OpenDescriptor is OpenPath for the object of an open descriptor, which may have no name
// any more, or never had one (memfd_create(2)). The Name of the result is what the kernel
// calls the object, such as "/tmp/file (deleted)". A descriptor that can only be read is for
// a read-only device.
func OpenDescriptor(fd int, readOnly bool) (*os.File, error) {
	file, err := openDescriptor(fd, readOnly)
	if err != nil {
		return nil, fmt.Errorf("descriptor %d: %w", fd, err)
	}
	return file, nil
}

func openDescriptor(fd int, readOnly bool) (*os.File, error) {
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	switch access := flags & unix.O_ACCMODE; {
	case err != nil:
		return nil, err
	case flags&unix.O_PATH == 0 && access == unix.O_WRONLY:
		return nil, fmt.Errorf("only open for writing: %w", unix.EBADF)
	case flags&unix.O_PATH == 0 && access == unix.O_RDONLY && !readOnly:
		return nil, hint.Add(fmt.Errorf("only open for reading: %w", unix.EBADF), "attach it with {read_only}")
	}
	if err := checkKind(fd); err != nil {
		return nil, err
	}
	object, err := unix.Open(ProcPath(fd), unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	name, err := os.Readlink(ProcPath(object))
	if err != nil {
		_ = unix.Close(object)
		return nil, err
	}
	return os.NewFile(uintptr(object), name), nil
}

// OpenPathIn is OpenPath for a path below the directory root, which counts as /, as in
// chroot(2). It finds the mounts below root whatever namespace this process is in
// (RESOLVE_IN_ROOT in openat2(2), Linux 5.6). The Name of the result is the path.
func OpenPathIn(root *os.File, path string) (*os.File, error) { return openPathIn(root, path, 0) }

// resolveCached is RESOLVE_CACHED of linux/openat2.h.
const resolveCached = 0x20

// cachedWalks bounds the walks of OpenCachedPathIn. A walk without waiting fails if a mount or a name changes at
// the same moment, anywhere. That is rare.
const cachedWalks = 10

// OpenCachedPathIn is OpenPathIn, but does not wait for a file system (RESOLVE_CACHED in openat2(2), Linux 5.12). It
// returns an error that wraps EAGAIN for a path that the kernel does not have in its caches.
func OpenCachedPathIn(root *os.File, path string) (file *os.File, err error) {
	for range cachedWalks {
		if file, err = openPathIn(root, path, resolveCached); !errors.Is(err, unix.EAGAIN) {
			break
		}
	}
	return file, err
}

func openPathIn(root *os.File, path string, resolve uint64) (*os.File, error) {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS | resolve}
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

// checkFile closes a descriptor if its object cannot be attached.
func checkFile(fd int) error {
	err := checkKind(fd)
	if err != nil {
		_ = unix.Close(fd)
	}
	return err
}

// pathError adds the user's path to an error, as an absolute path. An empty path, of a variable
// that is not set, is not the working directory.
func pathError(path string, err error) error {
	if path == "" {
		return fmt.Errorf("open \"\": %w", err)
	}
	if abs, absErr := filepath.Abs(path); absErr == nil {
		path = abs
	}
	return fmt.Errorf("open %s: %w", path, err)
}

// openOPath opens a path with O_PATH (openat2(2); Linux 5.6). It uses a plain open if a
// container's filter does not know openat2.
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
			return -1, hint.Add(err, "name the file itself: links lead in a circle, or to an open descriptor")
		}
		return fd, err
	}
}

// kindNames names the file types that cannot be attached.
var kindNames = map[uint32]string{
	unix.S_IFIFO:  "a FIFO",
	unix.S_IFCHR:  "a character device",
	unix.S_IFSOCK: "a socket",
	unix.S_IFLNK:  "a symbolic link",
}

func checkKind(fd int) error {
	var stx unix.Statx_t
	// The type of a file never changes, so its file system need not be asked.
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, unix.STATX_TYPE, &stx); err != nil {
		return fmt.Errorf("stat: %w", err)
	}
	switch kind := uint32(stx.Mode) & unix.S_IFMT; kind {
	case unix.S_IFREG, unix.S_IFBLK:
		return nil
	case unix.S_IFDIR:
		return unix.EISDIR
	default:
		return fmt.Errorf("%s, neither a file nor a disk: %w", kindNames[kind], unix.EINVAL)
	}
}

// ProcPath returns a path with which an open descriptor can be opened again.
func ProcPath(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }

// reopen opens the object of an O_PATH descriptor for I/O. It does not wait for the
// holder of a lease on the file (F_SETLEASE in fcntl(2)). Any owner of the file can hold
// a lease for 45 seconds. reopen then returns an error that wraps EAGAIN.
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
		err := fmt.Errorf("another program has a lease on it, and was asked to give it up: %w", err)
		return -1, hint.Add(err, "try again; the kernel ends the lease after /proc/sys/fs/lease-break-time")
	}
	if err != nil {
		return -1, err
	}
	// With the flag, io_uring would fail operations that have to wait.
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

// reopenQuietly is reopen without updates of the file's access time, because otherwise
// each read of the device would also write to the file system. The kernel refuses that
// for a file of another owner without CAP_FOWNER (open(2)); reopenQuietly then opens the
// file normally.
func reopenQuietly(file *os.File, flags int) (int, error) {
	fd, err := reopen(file, flags|unix.O_NOATIME)
	if errors.Is(err, unix.EPERM) {
		return reopen(file, flags)
	}
	return fd, err
}
