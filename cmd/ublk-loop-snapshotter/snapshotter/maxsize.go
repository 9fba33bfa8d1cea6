package snapshotter

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
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
// that wraps errdefs.ErrFailedPrecondition if the content does not fit. After an error the file
// is unusable.
func resize(ctx context.Context, f *os.File, size int64) error {
	info, err := f.Stat()
	if err != nil || info.Size() == size {
		return err
	}
	if size > info.Size() {
		if err := f.Truncate(size); err != nil {
			return err
		}
	}
	if err := resizeContent(ctx, f.Name(), size, size < info.Size()); err != nil {
		return err
	}
	return f.Truncate(size)
}

// resizeStore changes the size of the file system that the layers show. The device of a
// store is at least as large as the one below it. So a file system that shrinks leaves the end
// of its device free.
func (s *Snapshotter) resizeStore(ctx context.Context, store *os.File, l layers, size int64) error {
	file, err := s.dir.openPath(filepath.Base(store.Name()))
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	l.top().file = file
	w := wanted{id: store.Name(), files: l.files(), table: l.table()}
	h, err := s.devices.attach(ctx, &w)
	if err != nil {
		return err
	}
	defer s.devices.drop(w.id)
	if err := resizeContent(ctx, h.Device.Device, size, size < l[len(l)-2].size); err != nil {
		return err
	}
	// The next device of the store needs the end of this one.
	return s.devices.release(ctx, &w, s.settings.AttachTimeout)
}

// resizeContent changes the size of an unmounted file system in a file or on a disk.
func resizeContent(ctx context.Context, path string, size int64, shrinks bool) error {
	// The parent may have been unmounted by a crash.
	var status *exec.ExitError
	err := call(ctx, "e2fsck", "-f", "-p", path)
	if err != nil && (!errors.As(err, &status) || status.ExitCode() != fsckCorrected) {
		return err
	}
	err = call(ctx, "resize2fs", "-f", path, strconv.FormatInt(size/blockSize, 10))
	if shrinks && errors.As(err, &status) {
		return fmt.Errorf("label %s: %d bytes are too few for the content of the parent: %w: %w", SizeLabel, size, errdefs.ErrFailedPrecondition, err)
	}
	return err
}

// fsckCorrected is the exit status of e2fsck(8) after it has corrected all errors.
const fsckCorrected = 1
