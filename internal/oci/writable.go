package oci

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/oci/below"
)

// These are the directories that an overlay needs in the directory for its writes.
const (
	upperName = "upper" // the container's written files
	workName  = "work"  // used by the kernel
)

// writable holds these directories open. Writes go to these directories even if another
// program replaces them by links or mounts. That matters, because a container may have
// written there, and paths are resolved outside of it.
type writable struct{ upper, work *os.File }

// openWritable opens the directories in dir, and makes those that do not exist. The
// container sees the upper directory as its root directory. Therefore a new upper
// directory gets the mode and the owner of lower.
func openWritable(lower string, dir *os.File) (*writable, error) {
	var st unix.Stat_t
	if err := unix.Stat(lower, &st); err != nil {
		return nil, fmt.Errorf("look at %s: %w", lower, err)
	}
	w := &writable{}
	var err error
	if w.work, _, err = openOrMake(dir, workName); err != nil {
		return nil, err
	}
	var made bool
	if w.upper, made, err = openOrMake(dir, upperName); err == nil && made {
		err = makeLike(w.upper, &st)
	}
	if err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

// openOrMake opens a directory in dir, and reports whether it made the directory. It
// returns an error that wraps ELOOP for a link and EXDEV for a mount.
func openOrMake(dir *os.File, name string) (f *os.File, made bool, err error) {
	path := dir.Name() + "/" + name
	err = unix.Mkdirat(int(dir.Fd()), name, 0o700)
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, false, &os.PathError{Op: "mkdir", Path: path, Err: err}
	}
	made = err == nil
	fd, err := below.Open(dir, name, unix.OpenHow{Flags: unix.O_RDONLY | unix.O_DIRECTORY, Resolve: unix.RESOLVE_NO_XDEV})
	if err != nil {
		return nil, false, fmt.Errorf("open %s: %w", path, err)
	}
	return os.NewFile(fd, path), made, nil
}

// makeLike gives a directory the owner and the mode of another.
func makeLike(f *os.File, other *unix.Stat_t) error {
	if err := f.Chown(int(other.Uid), int(other.Gid)); err != nil {
		return err
	}
	if err := unix.Fchmod(int(f.Fd()), other.Mode&0o7777); err != nil {
		return &os.PathError{Op: "chmod", Path: f.Name(), Err: err}
	}
	return nil
}

// data returns the mount options of an overlay that name the directories. They are valid
// while the directories are open.
func (w *writable) data() string {
	return fmt.Sprintf("upperdir=/proc/self/fd/%d,workdir=/proc/self/fd/%d", w.upper.Fd(), w.work.Fd())
}

func (w *writable) close() {
	_ = w.work.Close()
	_ = w.upper.Close() // Close of a nil file only returns an error
}
