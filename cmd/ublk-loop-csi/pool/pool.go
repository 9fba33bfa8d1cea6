package pool

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/owndir"
)

const lockName = "lock"

// Pool is a directory with volumes and snapshots. It reaches no file outside of it.
type Pool struct {
	Volumes   Store[Volume]
	Snapshots Store[Snapshot]
	Layers    Store[Layer]

	// Shares says that files of the pool can share blocks.
	Shares bool

	root  *os.Root
	lock  *os.File
	spare *spare
}

// Open opens the pool at an absolute path, and makes it if it is missing. The pool is
// locked until Close.
func Open(path string) (*Pool, error) {
	if !filepath.IsAbs(path) {
		return nil, fmt.Errorf("pool %q: not an absolute path: %w", path, unix.EINVAL)
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	p := &Pool{root: root, spare: &spare{root: root}}
	p.Volumes = Store[Volume]{root, Volumes, p.spare}
	p.Snapshots = Store[Snapshot]{root, Snapshots, p.spare}
	p.Layers = Store[Layer]{root, Layers, p.spare}
	if err := p.prepare(); err != nil {
		return nil, fmt.Errorf("open pool %s: %w", path, errors.Join(err, p.Close()))
	}
	return p, nil
}

func (p *Pool) prepare() error {
	if err := owndir.Check(p.root, 0o022); err != nil {
		return err
	}
	var err error
	if p.lock, err = owndir.Lock(p.root, lockName); err != nil {
		return err
	}
	for _, kind := range []Kind{Volumes, Snapshots, Layers} {
		if err := p.root.Mkdir(string(kind), 0o700); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	if err := p.findSharing(); err != nil {
		return err
	}
	if err := p.spare.make(); err != nil {
		return err
	}
	return syncName(p.root, ".")
}

// Close unlocks the pool.
func (p *Pool) Close() error {
	err := p.root.Close()
	if p.lock != nil {
		err = errors.Join(err, p.lock.Close())
	}
	return err
}

// Space is the space of the file system that holds the pool, in bytes.
type Space struct {
	Total, Free int64 // Free is what an unprivileged user may take
}

// Space asks the file system for its space.
func (p *Pool) Space() (Space, error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(p.lock.Fd()), &st); err != nil {
		return Space{}, fmt.Errorf("ask for the space of %s: %w", p.root.Name(), err)
	}
	block := st.Frsize
	return Space{Total: int64(st.Blocks) * block, Free: int64(st.Bavail) * block}, nil
}

// syncName writes a file, or the names of a directory, to disk.
func syncName(root *os.Root, name string) error {
	f, err := root.Open(name)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	return f.Sync()
}
