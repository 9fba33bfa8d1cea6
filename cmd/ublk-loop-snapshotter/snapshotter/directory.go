package snapshotter

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/core/snapshots"
	"golang.org/x/sys/unix"
)

// The names in the directory.
const (
	snapshotsDir  = "snapshots"
	unfinishedTag = "new-"
	lockName      = "lock"
)

// fileOf returns the name of a snapshot's file.
func fileOf(id string) string { return filepath.Join(snapshotsDir, id) }

// directory is where all files are. Nothing outside of it is reached.
type directory struct {
	*os.Root
	lock *os.File
}

// openDirectory opens a directory, which is this process's until close.
func openDirectory(path string) (*directory, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	d := &directory{Root: root}
	if err = d.checkOwner(); err == nil {
		err = d.claim()
	}
	if err == nil {
		err = d.Mkdir(snapshotsDir, 0o700)
	}
	if err != nil && !errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("use %s: %w", path, errors.Join(err, d.close()))
	}
	return d, nil
}

// checkOwner refuses a directory in which somebody else could put files.
func (d *directory) checkOwner() error {
	f, err := d.Open(".")
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	if int(st.Uid) != os.Geteuid() || st.Mode&0o077 != 0 {
		return fmt.Errorf("owner %d, mode %o: others have access: %w", st.Uid, st.Mode&0o7777, unix.EPERM)
	}
	return nil
}

func (d *directory) claim() error {
	var err error
	if d.lock, err = d.OpenFile(lockName, os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return err
	}
	if err := unix.Flock(int(d.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("another process does: %w", err)
	}
	return nil
}

func (d *directory) close() error {
	err := d.Close()
	if d.lock != nil {
		err = errors.Join(err, d.lock.Close())
	}
	return err
}

// path returns the absolute path of a name.
func (d *directory) path(name string) string { return filepath.Join(d.Name(), name) }

// unfinished makes a file that is nobody's yet.
func (d *directory) unfinished(what string) (*os.File, error) {
	return d.OpenFile(unfinishedTag+what, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
}

// finish gives a file its name, when its content is on the disk.
func (d *directory) finish(f *os.File, name string) error {
	if err := f.Sync(); err != nil {
		return err
	}
	if err := d.Rename(filepath.Base(f.Name()), name); err != nil {
		return err
	}
	return d.sync(filepath.Dir(name))
}

// sync writes a file or the names of a directory to the disk.
func (d *directory) sync(name string) error {
	f, err := d.Open(name)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	return f.Sync()
}

// usage returns what a file takes on the disk.
func (d *directory) usage(name string) (snapshots.Usage, error) {
	f, err := d.openPath(name)
	if err != nil {
		return snapshots.Usage{}, err
	}
	defer func() { _ = f.Close() }()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return snapshots.Usage{}, fmt.Errorf("look at %s: %w", f.Name(), err)
	}
	return snapshots.Usage{Inodes: 1, Size: st.Blocks * 512}, nil
}

// openPath finds a file (O_PATH in open(2)).
func (d *directory) openPath(name string) (*os.File, error) {
	return d.OpenFile(name, unix.O_PATH, 0)
}

// removeAllBut removes the files of a directory whose names are not to be kept.
func (d *directory) removeAllBut(name string, keep func(name string) bool) error {
	f, err := d.Open(name)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	names, err := f.Readdirnames(-1)
	errs := []error{err}
	for _, n := range names {
		if !keep(n) {
			errs = append(errs, d.Remove(filepath.Join(name, n)))
		}
	}
	return errors.Join(errs...)
}

// isFinished reports whether a name is one of a file that is somebody's.
func isFinished(name string) bool { return !strings.HasPrefix(name, unfinishedTag) }
