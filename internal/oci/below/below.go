package oci

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// errNotAllowed is returned for a path that is not below a directory of the settings.
var errNotAllowed = errors.New("not below a directory that the settings allow")

// openAllowed opens a path below one of the directories dirs, with O_PATH (open(2)). The
// part of the path below the directory must not contain links. Therefore the path cannot
// lead elsewhere, even if other users change the directory meanwhile.
func openAllowed(dirs []string, path string, flags uint64) (*os.File, error) {
	for _, dir := range dirs {
		rel, err := filepath.Rel(dir, path)
		if err != nil || !filepath.IsLocal(rel) || rel == "." {
			continue
		}
		top, err := os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, err
		}
		f, err := openBelow(top, rel, unix.OpenHow{Flags: unix.O_PATH | flags})
		_ = top.Close()
		if err != nil {
			return nil, fmt.Errorf("open %s: %w", path, err)
		}
		return os.NewFile(f, path), nil
	}
	return nil, fmt.Errorf("%s: %w", path, errNotAllowed)
}

// openBelow opens a path that stays below a directory and contains no link (openat2(2),
// Linux 5.6).
func openBelow(dir *os.File, path string, how unix.OpenHow) (fd uintptr, err error) {
	how.Flags |= unix.O_CLOEXEC
	how.Resolve |= unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS
	defer runtime.KeepAlive(dir)
	for {
		fd, err := unix.Openat2(int(dir.Fd()), path, &how)
		switch {
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN): // EAGAIN: a concurrent rename
			continue
		case errors.Is(err, unix.ELOOP):
			return 0, fmt.Errorf("the path contains a link: %w", err)
		case errors.Is(err, unix.EXDEV):
			return 0, fmt.Errorf("the path leaves the directory: %w", err)
		}
		return uintptr(fd), err
	}
}

// openImage opens an image, which must be a regular file.
func openImage(dirs []string, path string) (*os.File, error) {
	f, err := openAllowed(dirs, path, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s: not a regular file: %w", path, unix.EINVAL)
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}
