package pool

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// spareName is a file whose block is there when the file system is full. A new version of a record is then
// written to it and changes places with the old one, whose block is the spare one from then on. So volumes
// can be unpublished, unstaged and deleted, which is what makes space.
const spareName = "spare"

// spareBytes is the size of a new spare file. Few records are larger.
const spareBytes = 4096

// spare is the spare file of a pool.
type spare struct {
	mu   sync.Mutex // held while the file is used
	root *os.Root
}

// make makes the file if it is missing and there is space for it.
func (s *spare) make() error {
	f, err := s.root.OpenFile(spareName, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if errors.Is(err, os.ErrExist) || isFull(err) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = f.Write(make([]byte, spareBytes))
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		return nil
	}
	if e := s.root.Remove(spareName); e != nil || !isFull(err) {
		return errors.Join(err, e)
	}
	return nil
}

// replace gives an existing file another content, without a new block.
func (s *spare) replace(name string, content []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	f, err := s.root.OpenFile(spareName, os.O_WRONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(content, 0)
	if err = errors.Join(err, f.Truncate(int64(len(content))), f.Sync(), f.Close()); err != nil {
		return err
	}
	dir, err := s.root.Open(".")
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }()
	if err := unix.Renameat2(int(dir.Fd()), spareName, int(dir.Fd()), name, unix.RENAME_EXCHANGE); err != nil {
		return fmt.Errorf("exchange %s: %w", name, err)
	}
	return dir.Sync()
}

// isFull reports whether an error means that there is no space.
func isFull(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }
