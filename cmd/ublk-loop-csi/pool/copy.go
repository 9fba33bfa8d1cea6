package pool

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

// isUnsupported reports whether an error means that the file system lacks the operation.
// File systems use different errors for that.
func isUnsupported(err error) bool {
	for _, errno := range []unix.Errno{unix.EOPNOTSUPP, unix.ENOTTY, unix.EXDEV, unix.EINVAL, unix.ENOSYS} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// copyData copies a file without its holes.
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
		case errors.Is(err, unix.ENXIO): // the rest is a hole
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

// copyRange copies a range of bytes in chunks, so that it ends soon after the context.
func copyRange(ctx context.Context, to, from *os.File, start, end int64) error {
	for ; start < end; start += copyChunk {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := min(end-start, copyChunk)
		if _, err := io.Copy(io.NewOffsetWriter(to, start), io.NewSectionReader(from, start, n)); err != nil {
			return err
		}
	}
	return nil
}
