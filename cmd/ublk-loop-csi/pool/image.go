package pool

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/filecopy"
)

// ErrNoReflink is returned if a copy would have to copy the data.
var ErrNoReflink = errors.New("the file system of the pool cannot share blocks between files")

// ImagePath returns the absolute path of an image.
func (s Store[T]) ImagePath(id string) string {
	return filepath.Join(s.root.Name(), s.name(id, imageSuffix))
}

// OpenImage opens an image with flags of open(2).
func (s Store[T]) OpenImage(id string, flags int) (*os.File, error) {
	if err := s.check(id); err != nil {
		return nil, err
	}
	return s.root.OpenFile(s.name(id, imageSuffix), flags|unix.O_NOFOLLOW, 0o600)
}

// Create makes an empty image. It replaces an image that an earlier call left incomplete.
func (s Store[T]) Create(id string, size int64, thick bool) error {
	return s.make(id, func(f *os.File) error { return grow(f, 0, size, thick) })
}

// Copy makes an image with the content of another. With share the files must share blocks:
// Copy takes no longer for a large file, and writers of the source wait. Otherwise nothing
// may write to the source meanwhile.
func (s Store[T]) Copy(ctx context.Context, id string, from *os.File, size int64, thick, share bool) error {
	return s.make(id, func(f *os.File) error {
		err := filecopy.Share(f, from)
		if filecopy.IsUnsupported(err) {
			if err = ErrNoReflink; !share {
				err = filecopy.Data(ctx, f, from)
			}
		}
		if err != nil {
			return err
		}
		info, err := f.Stat()
		if err != nil {
			return err
		}
		return grow(f, info.Size(), size, thick)
	})
}

// Grow gives an image a size that is larger than its own.
func (s Store[T]) Grow(id string, size int64, thick bool) error {
	f, err := s.OpenImage(id, os.O_RDWR)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err == nil {
		err = grow(f, info.Size(), size, thick)
	}
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		return fmt.Errorf("grow the image of %s: %w", id, err)
	}
	return nil
}

// Allocated returns the bytes that an image takes on disk, 0 if there is no image.
func (s Store[T]) Allocated(id string) (int64, error) {
	f, err := s.OpenImage(id, unix.O_PATH)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }()
	var st unix.Stat_t
	err = unix.Fstat(int(f.Fd()), &st)
	return st.Blocks * 512, err
}

// EachShared calls a function for each part of an image's blocks that other files share.
func (s Store[T]) EachShared(id string, each func(filecopy.Extent)) error {
	f, err := s.OpenImage(id, os.O_RDONLY)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	return filecopy.EachShared(f, each)
}

// make makes an image and writes it to disk.
func (s Store[T]) make(id string, fill func(*os.File) error) error {
	f, err := s.OpenImage(id, os.O_RDWR|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if err = fill(f); err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = syncName(s.root, string(s.kind))
	}
	if err != nil {
		return fmt.Errorf("make the image of %s: %w", id, err)
	}
	return nil
}

// grow extends a file. With thick it also allocates all blocks.
func grow(f *os.File, from, to int64, thick bool) error {
	if to > from {
		if err := f.Truncate(to); err != nil {
			return err
		}
	}
	if !thick {
		return nil
	}
	return ignoringEINTR(func() error { return unix.Fallocate(int(f.Fd()), 0, 0, to) })
}

func ignoringEINTR(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
