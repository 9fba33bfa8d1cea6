// Package filecopy copies files: by blocks that both share, or the data without the holes.
package filecopy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// copyChunk is the number of bytes that are copied between two checks of the context.
const copyChunk = 64 << 20

// Share makes a new file a copy of another that shares its blocks. Only some file systems can do
// that (xfs, btrfs): IsUnsupported tells from the error.
func Share(to, from *os.File) error {
	return unix.IoctlFileClone(int(to.Fd()), int(from.Fd()))
}

// IsUnsupported reports whether an error means that the file system lacks the operation.
// File systems use different errors for that.
func IsUnsupported(err error) bool {
	for _, errno := range []unix.Errno{unix.EOPNOTSUPP, unix.ENOTTY, unix.EXDEV, unix.EINVAL, unix.ENOSYS} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// Data copies all data, but not the holes. The copy has the size of the source.
func Data(ctx context.Context, to, from *os.File) error {
	info, err := from.Stat()
	if err != nil {
		return err
	}
	if err := to.Truncate(info.Size()); err != nil {
		return err
	}
	for end := int64(0); ; {
		start, err := unix.Seek(int(from.Fd()), end, unix.SEEK_DATA)
		switch {
		case errors.Is(err, unix.ENXIO): // only a hole follows
			return hasSize(from, info.Size())
		case err != nil:
			return fmt.Errorf("find data: %w", err)
		}
		if end, err = unix.Seek(int(from.Fd()), start, unix.SEEK_HOLE); err != nil {
			return fmt.Errorf("find hole: %w", err)
		}
		if err := copyRange(ctx, to, from, start, end); err != nil {
			return err
		}
	}
}

// hasSize returns an error that wraps io.ErrUnexpectedEOF if a file has become shorter.
func hasSize(f *os.File, size int64) error {
	info, err := f.Stat()
	if err == nil && info.Size() < size {
		err = fmt.Errorf("%s has become shorter: %w", f.Name(), io.ErrUnexpectedEOF)
	}
	return err
}

// copyRange copies a range of bytes, within the kernel if possible.
func copyRange(ctx context.Context, to, from *os.File, start, end int64) error {
	copySome, inKernel := copyInKernel, true
	for start < end {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := copySome(to, from, start, min(end-start, copyChunk))
		switch {
		case errors.Is(err, unix.EINTR):
		case inKernel && IsUnsupported(err):
			copySome, inKernel = copyThroughMemory, false
		case err != nil:
			return err
		case n == 0:
			return io.ErrUnexpectedEOF // the file was truncated meanwhile
		default:
			start += n
		}
	}
	return nil
}

// copyInKernel copies up to n bytes at an offset, and returns how many it has copied.
func copyInKernel(to, from *os.File, at, n int64) (int64, error) {
	in, out := at, at
	copied, err := unix.CopyFileRange(int(from.Fd()), &in, int(to.Fd()), &out, int(n), 0)
	return int64(copied), err
}

// copyThroughMemory is copyInKernel for file systems between which the kernel does not copy.
func copyThroughMemory(to, from *os.File, at, n int64) (int64, error) {
	return io.Copy(io.NewOffsetWriter(to, at), io.NewSectionReader(from, at, n))
}
