package verityfile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/transfer/verity"
)

// A Location says where the data, the superblock and the tree are.
type Location struct {
	Image string
	// HashFile has the superblock and the tree. If it is empty, Image has them, behind
	// the data.
	HashFile string
	// HashOffset is the offset of the superblock in bytes, a multiple of 512. nil is
	// the start of HashFile, or the end of the data.
	HashOffset *uint64
	// RootHash is for Open: the root hash in hexadecimal digits, or a file with them, or auto:
	// what is beside the image, or in its partitions.
	RootHash string
	// Signature is for Open: a file with a PKCS#7 signature of the root hash, or auto. If it
	// is empty, no signature is needed.
	Signature string
	// Opener is for Open: it opens the files that are named here or lie beside the image.
	Opener Opener
}

// An Opener opens a file, a disk or a directory by its absolute path, with O_PATH (open(2)) and
// further flags. The name of the result is the path that a table has.
type Opener func(path string, flags int) (*os.File, error)

// A store is an open file or disk.
type store struct {
	*os.File
	size   uint64
	isDisk bool
}

// openStore opens a file or disk. With unix.O_EXCL among the flags, it returns
// EBUSY for a disk that is mounted or otherwise claimed.
func openStore(path string, flags int) (*store, error) {
	file, err := os.OpenFile(path, flags|unix.O_NONBLOCK, 0o666)
	if err != nil {
		return nil, err
	}
	s := &store{File: file}
	if err := s.inspect(); err != nil {
		_ = file.Close()
		return nil, err
	}
	return s, nil
}

// inspect sets the size, and refuses everything but files and disks.
func (s *store) inspect() error {
	info, err := s.Stat()
	if err != nil {
		return err
	}
	s.isDisk = info.Mode()&(os.ModeDevice|os.ModeCharDevice) == os.ModeDevice
	if !s.isDisk && !info.Mode().IsRegular() {
		return fmt.Errorf("open %s: neither a file nor a disk: %w", s.Name(), unix.EINVAL)
	}
	size, err := s.Seek(0, io.SeekEnd)
	s.size = uint64(size)
	return err
}

// exclusive returns the flags that claim a disk, and nothing for a file, for which
// the kernel would ignore or misunderstand them.
func exclusive(path string) int {
	info, err := os.Stat(path)
	if err == nil && info.Mode()&(os.ModeDevice|os.ModeCharDevice) == os.ModeDevice {
		return unix.O_EXCL
	}
	return 0
}

// sameFile reports whether two stores are the same file or disk.
func sameFile(a, b *os.File) (bool, error) {
	infoA, errA := a.Stat()
	infoB, errB := b.Stat()
	if err := errors.Join(errA, errB); err != nil {
		return false, err
	}
	return os.SameFile(infoA, infoB), nil
}

// checkOffset refuses an offset at which no superblock can be.
func checkOffset(offset uint64) error {
	if offset%verity.SuperblockSize != 0 {
		return fmt.Errorf("hash offset %d is not a multiple of %d: %w", offset, verity.SuperblockSize, unix.EINVAL)
	}
	return nil
}

// interrupted is a reader that fails when its context ends.
type interrupted struct {
	ctx  context.Context
	from io.ReaderAt
	at   int64
}

// Read implements io.Reader.
func (r *interrupted) Read(b []byte) (int, error) {
	n, err := r.ReadAt(b, r.at)
	r.at += int64(n)
	if n > 0 {
		return n, nil // the next call has the error
	}
	return n, err
}

// ReadAt implements io.ReaderAt.
func (r *interrupted) ReadAt(b []byte, at int64) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.from.ReadAt(b, at)
}
