package snapshotter

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/core/snapshots"
	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/filecopy"
	"github.com/ublk-loop/ublk-loop/internal/owndir"
)

// These are the names in the directory.
const (
	snapshotsDir  = "snapshots"
	unfinishedTag = "new-"
	lockName      = "lock"
)

// fileOf returns the name of a snapshot's image.
func fileOf(id string) string { return filepath.Join(snapshotsDir, id) }

// storeSuffix ends the names of stores.
const storeSuffix = ".cow"

// storeOf returns the name of a snapshot's store, if it has that in the place of an image.
func storeOf(id string) string { return fileOf(id) + storeSuffix }

// removeFiles removes the image and the store of a snapshot.
func (d *directory) removeFiles(id string) error {
	return errors.Join(ignoreNotExist(d.Remove(fileOf(id))), ignoreNotExist(d.Remove(storeOf(id))))
}

// exists reports whether there is a file of that name.
func (d *directory) exists(name string) bool { _, err := d.Lstat(name); return err == nil }

// directory holds all files. It reaches no file outside of it.
type directory struct {
	*os.Root
	lock *os.File
}

// openDirectory opens a directory and locks it for this process until close.
func openDirectory(path string) (*directory, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	d := &directory{Root: root}
	if err = owndir.Check(root, 0o077); err == nil {
		d.lock, err = owndir.Lock(root, lockName)
	}
	if err == nil {
		err = d.Mkdir(snapshotsDir, 0o700)
	}
	if err != nil && !errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("use %s: %w", path, errors.Join(err, d.close()))
	}
	return d, nil
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

// unfinished makes a file with a temporary name.
func (d *directory) unfinished(what string) (*os.File, error) {
	return d.OpenFile(unfinishedTag+what, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
}

// finish writes a file to disk, and then gives it its final name.
func (d *directory) finish(f *os.File, name string) error {
	if err := f.Sync(); err != nil {
		return err
	}
	if err := d.Rename(filepath.Base(f.Name()), name); err != nil {
		return err
	}
	return d.sync(filepath.Dir(name))
}

// sync writes a file, or the names of a directory, to disk.
func (d *directory) sync(name string) error {
	f, err := d.Open(name)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	return f.Sync()
}

// usage returns the disk usage of a file, without the blocks that it shares with others.
func (d *directory) usage(name string) (snapshots.Usage, error) {
	f, err := d.Open(name)
	if err != nil {
		return snapshots.Usage{}, err
	}
	defer func() { _ = f.Close() }()
	shared, err := filecopy.SharedBytes(f)
	if err != nil {
		return snapshots.Usage{}, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return snapshots.Usage{}, fmt.Errorf("look at %s: %w", f.Name(), err)
	}
	// The file may have changed between both calls.
	return snapshots.Usage{Inodes: 1, Size: max(st.Blocks*512-shared, 0)}, nil
}

// openPath opens a file with O_PATH, for its identity only (open(2)).
func (d *directory) openPath(name string) (*os.File, error) {
	return d.OpenFile(name, unix.O_PATH, 0)
}

// nameOf returns the name of the file that an active snapshot writes to.
func (d *directory) nameOf(id string) string {
	if d.exists(fileOf(id)) {
		return fileOf(id)
	}
	return storeOf(id)
}

// removeAllBut removes the files of a directory, except those for which keep returns
// true. It calls failed with the error of each file that cannot be removed.
func (d *directory) removeAllBut(name string, keep func(name string) bool, failed func(error)) error {
	f, err := d.Open(name)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	names, err := f.Readdirnames(-1)
	for _, n := range names {
		if keep(n) {
			continue
		}
		if err := ignoreNotExist(d.Remove(filepath.Join(name, n))); err != nil { // Remove may have removed it
			failed(err)
		}
	}
	return err
}

// isFinished reports whether a file has its final name.
func isFinished(name string) bool { return !strings.HasPrefix(name, unfinishedTag) }
