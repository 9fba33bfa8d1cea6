package pool

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// spareName is a file whose blocks are there when the file system is full. A new version of a record is then
// written to it and changes places with the old one. So volumes can be unpublished, unstaged and deleted, which is
// what makes space.
const spareName = "spare"

// spareBytes is the size of the spare file. The record of a volume that all pods of a node use is not larger.
const spareBytes = 64 << 10

// spare is the spare file of a pool.
type spare struct {
	mu   sync.RWMutex // held while the file is used, and for reading while a record is read, which can become it
	root *os.Root
}

// make makes the file, or as much of it as there is space for.
func (s *spare) make() error {
	f, err := s.root.OpenFile(spareName, os.O_WRONLY|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if isFull(err) {
		return nil
	}
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err == nil && info.Size() < spareBytes {
		_, err = f.WriteAt(make([]byte, spareBytes-info.Size()), info.Size())
		err = errors.Join(err, f.Sync())
	}
	if err = errors.Join(err, f.Close()); !isFull(err) {
		return err
	}
	return nil
}

// replace gives a record another content, without a new block. The record has the old content or the new one
// whenever the machine stops.
func (s *spare) replace(name string, content []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.fill(content); err != nil {
		return err
	}
	if err := s.exchange(name); err != nil {
		return err
	}
	// The record has the spare blocks now. The next record may need them, so it gets its own ones back. Without space for
	// that, it keeps them until it is replaced again.
	if size, err := s.size(); err != nil || size >= spareBytes || s.fill(content) != nil {
		return err
	}
	return s.exchange(name)
}

// fill writes a content to the spare file. Blanks behind it keep the blocks of the file.
func (s *spare) fill(content []byte) error {
	f, err := s.root.OpenFile(spareName, os.O_WRONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err == nil {
		blanks := max(info.Size()-int64(len(content)), 0)
		_, err = f.WriteAt(append(slices.Clip(content), bytes.Repeat([]byte{' '}, int(blanks))...), 0)
	}
	return errors.Join(err, f.Sync(), f.Close())
}

// size returns the size of the spare file.
func (s *spare) size() (int64, error) {
	info, err := s.root.Lstat(spareName)
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// exchange makes the spare file and a record change places.
func (s *spare) exchange(name string) error {
	dir, err := s.root.Open(".")
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }()
	if err := unix.Renameat2(int(dir.Fd()), spareName, int(dir.Fd()), name, unix.RENAME_EXCHANGE); err != nil {
		return fmt.Errorf("exchange %s: %w", name, err)
	}
	// Both names are on disk before the file that is the spare one now gets another content.
	return errors.Join(dir.Sync(), syncName(s.root, filepath.Dir(name)))
}

// isFull reports whether an error means that there is no space.
func isFull(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }
