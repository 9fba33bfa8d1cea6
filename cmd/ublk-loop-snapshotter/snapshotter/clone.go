package snapshotter

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// copyChunk is how many bytes are copied between two looks at whether that is
// still wanted.
const copyChunk = 64 << 20

// clone makes a new file the same as another of the same file system: it shares
// its blocks where the file system can do that (xfs, btrfs), and has its holes
// elsewhere.
func clone(ctx context.Context, to, from *os.File) error {
	err := unix.IoctlFileClone(int(to.Fd()), int(from.Fd()))
	if isUnsupported(err) {
		err = copyData(ctx, to, from)
	}
	if err != nil {
		return fmt.Errorf("copy %s to %s: %w", from.Name(), to.Name(), err)
	}
	return nil
}

// isUnsupported reports whether an error says that a file system has no such
// operation: each has its own word for it.
func isUnsupported(err error) bool {
	for _, errno := range []unix.Errno{unix.EOPNOTSUPP, unix.ENOTTY, unix.EXDEV, unix.EINVAL, unix.ENOSYS} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// copyData copies what is not a hole.
func copyData(ctx context.Context, to, from *os.File) error {
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
		case errors.Is(err, unix.ENXIO): // nothing but a hole follows
			return nil
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

// copyRange copies some bytes, within the kernel where it can.
func copyRange(ctx context.Context, to, from *os.File, start, end int64) error {
	for start < end {
		if err := ctx.Err(); err != nil {
			return err
		}
		in, out := start, start
		n, err := unix.CopyFileRange(int(from.Fd()), &in, int(to.Fd()), &out, int(min(end-start, copyChunk)), 0)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case isUnsupported(err):
			_, err = io.Copy(io.NewOffsetWriter(to, start), io.NewSectionReader(from, start, end-start))
			return err
		case err != nil:
			return err
		case n == 0:
			return io.ErrUnexpectedEOF // somebody has made it shorter
		}
		start += int64(n)
	}
	return nil
}
