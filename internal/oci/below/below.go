// Package below opens files below directories that settings name. The paths come from whoever
// may start a container.
package below

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// ErrNotAllowed is returned for a path that is not below a directory of the settings.
var ErrNotAllowed = errors.New("not below a directory that the settings allow")

// OpenPath opens a path below one of the directories dirs, with O_PATH (open(2)) and further
// flags. The part of the path below the directory must not contain links. Therefore the path
// cannot lead elsewhere, even if other users change the directory meanwhile.
func OpenPath(dirs []string, path string, flags int) (*os.File, error) {
	return openPath(dirs, path, flags, false)
}

// OpenDirectory is OpenPath for a directory, which can also be one of dirs.
func OpenDirectory(dirs []string, path string) (*os.File, error) {
	return openPath(dirs, path, unix.O_DIRECTORY, true)
}

func openPath(dirs []string, path string, flags int, orTop bool) (*os.File, error) {
	for _, dir := range dirs {
		rel, err := filepath.Rel(dir, path)
		if err != nil || !filepath.IsLocal(rel) || rel == "." && !orTop {
			continue
		}
		top, err := os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, err
		}
		fd, err := Open(top, rel, unix.OpenHow{Flags: unix.O_PATH | uint64(flags)})
		_ = top.Close()
		if err != nil {
			return nil, fmt.Errorf("open %s: %w", path, err)
		}
		return os.NewFile(fd, path), nil
	}
	return nil, fmt.Errorf("%s: %w", path, ErrNotAllowed)
}

// Open opens a path that stays below a directory and contains no link (openat2(2),
// Linux 5.6).
func Open(dir *os.File, path string, how unix.OpenHow) (fd uintptr, err error) {
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

// OpenRegular is OpenPath for a regular file.
func OpenRegular(dirs []string, path string) (*os.File, error) {
	f, err := OpenPath(dirs, path, 0)
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
