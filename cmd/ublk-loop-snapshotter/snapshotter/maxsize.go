package snapshotter

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"

	"github.com/containerd/errdefs"
)

// SizeLabel is containerd's label for the maximum size of an active snapshot, in bytes. A
// client sets it for a container (ctr run --snapshotter-label), and a pod's annotation for
// its sandbox.
const SizeLabel = "containerd.io/snapshot/max-size"

// blockSize is the size of a block of the file systems in snapshots.
const blockSize = 4096

// sizeOf returns the size that the labels ask for, rounded down to whole blocks, or 0. It
// ignores the label on a layer, because that is an annotation of a manifest, whose author
// must not choose the size. It returns an error that wraps errdefs.ErrInvalidArgument for
// a size that cannot be had.
func (s *Snapshotter) sizeOf(labels map[string]string) (int64, error) {
	text, wanted := labels[SizeLabel]
	if _, isLayer := labels[refLabel]; !wanted || isLayer {
		return 0, nil
	}
	size, err := strconv.ParseInt(text, 10, 64)
	switch {
	case err != nil || size <= 0:
		err = errors.New("not a positive number of bytes")
	case isImage(labels):
		err = errors.New("an image file has a size of its own")
	case size > s.maxSize:
		err = fmt.Errorf("more than the %d bytes of --max-size", s.maxSize)
	case size < minSize:
		err = fmt.Errorf("less than %d bytes, which a file system needs", minSize)
	}
	if err != nil {
		return 0, fmt.Errorf("label %s: %q: %w: %w", SizeLabel, text, err, errdefs.ErrInvalidArgument)
	}
	return size / blockSize * blockSize, nil
}

// resize changes the size of an unmounted file system and its file. It returns an error
// that wraps errdefs.ErrFailedPrecondition if the content does not fit, and leaves an
// unusable file then.
func resize(ctx context.Context, f *os.File, size int64) error {
	info, err := f.Stat()
	if err != nil || info.Size() == size {
		return err
	}
	// The parent may have been unmounted by a crash.
	var status *exec.ExitError
	err = call(ctx, "e2fsck", "-f", "-p", f.Name())
	if err != nil && (!errors.As(err, &status) || status.ExitCode() != fsckCorrected) {
		return err
	}
	if size > info.Size() {
		if err := f.Truncate(size); err != nil {
			return err
		}
	}
	if err := call(ctx, "resize2fs", "-f", f.Name(), strconv.FormatInt(size/blockSize, 10)); err != nil {
		if size < info.Size() && errors.As(err, &status) {
			err = fmt.Errorf("label %s: %d bytes are too few for the content of the parent: %w: %w", SizeLabel, size, errdefs.ErrFailedPrecondition, err)
		}
		return err
	}
	return f.Truncate(size)
}

// fsckCorrected is the exit status of e2fsck(8) after it has corrected all errors.
const fsckCorrected = 1
