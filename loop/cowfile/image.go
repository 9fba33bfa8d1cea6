package cowfile

import (
	"bytes"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/loop/internal/backing"
	"github.com/ublk-loop/ublk-loop/loop/internal/basemark"
	"github.com/ublk-loop/ublk-loop/transfer/snapshot"
)

// A store over another image than its own shows a mixture of both. The label has the path of its
// image, and the image has a record of the store. But a copy of the image may have no record, and
// all of them may have been moved.

// match says how an image and a store belong together.
type match int

const (
	unknown match = iota // nothing shows it
	matches
	differs
)

// matchOf returns whether the image at a path is that of a store: it has the record of the store, or
// the data of the image that has it. An image with other data than that one is another image.
func matchOf(path string, label *snapshot.Label) (match, error) {
	given, err := openImage(path)
	if given == nil || err != nil {
		return unknown, err
	}
	defer func() { _ = given.Close() }()
	switch has, err := basemark.Has(given.File(), label.UUID); {
	case errors.Is(err, basemark.ErrUnsupported):
		return unknown, nil
	case has || err != nil:
		return matches, err
	}
	recorded, err := openImage(label.OriginPath)
	if recorded == nil || err != nil {
		return unknown, nil //nolint:nilerr // it may have been removed
	}
	defer func() { _ = recorded.Close() }()
	if has, err := basemark.Has(recorded.File(), label.UUID); !has || err != nil {
		return unknown, nil //nolint:nilerr // another file may be at the path now
	}
	same, err := sameSamples(given, recorded)
	switch {
	case err != nil:
		return unknown, err
	case same:
		return matches, nil
	}
	return differs, nil
}

// openImage opens a file for reading. It returns nil for a disk, which has no records.
func openImage(path string) (*backing.Part, error) {
	file, err := backing.OpenPath(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, err
	}
	return backing.OpenPart(file, 0, 0)
}

// These say which parts of two images are compared: the first, the last, and some between. File
// systems have what differs between two of them at the start.
const (
	samples    = 16
	sampleSize = 64 << 10
)

// sameSamples reports whether two images are equal where they are compared.
func sameSamples(a, b *backing.Part) (bool, error) {
	if a.Size() != b.Size() {
		return false, nil
	}
	size := min(sampleSize, a.Size())
	one, other := make([]byte, size), make([]byte, size)
	for i := range int64(samples) {
		at := (a.Size() - size) / (samples - 1) * i
		if i == samples-1 {
			at = a.Size() - size
		}
		if _, err := a.ReadAt(one, at); err != nil {
			return false, err
		}
		if _, err := b.ReadAt(other, at); err != nil {
			return false, err
		}
		if !bytes.Equal(one, other) {
			return false, nil
		}
	}
	return true, nil
}

// refuseOther returns an error if the store has changes of another image than the origin.
func (o *TableOptions) refuseOther(store *Info) error {
	is, err := matchOf(o.Origin, store.Label)
	if err != nil {
		return fmt.Errorf("compare %s with the image of %s: %w", o.Origin, store.Path, err)
	}
	if is != differs {
		return nil
	}
	err = fmt.Errorf("%s has changes of another image: %w", store.Path, unix.EINVAL)
	return &hint.Error{Err: err, Hint: "its image is " + store.Label.OriginPath}
}

// Doubt returns why it is uncertain that a store has changes of an image, or an empty text. It is for
// a warning, before a device records the store in the image.
func Doubt(image, store string) string {
	empty := false
	info, err := describe(store, func(info *Info, part *backing.Part) error {
		record := make([]byte, 16)
		_, err := part.ReadAt(record, int64(info.ChunkSize)) // the first of the first area
		empty = bytes.Equal(record[8:], make([]byte, 8))
		return err
	})
	if err != nil || info.Label == nil || empty {
		return ""
	}
	if is, err := matchOf(image, info.Label); err != nil || is == matches || isUnrecordable(image) {
		return ""
	}
	return fmt.Sprintf("nothing shows that %s has changes of this image; its image was %s", info.Path, info.Label.OriginPath)
}

// isUnrecordable reports whether an image can have no record of stores: a disk, or a file on a file
// system without extended attributes.
func isUnrecordable(path string) bool {
	image, err := openImage(path)
	if image == nil || err != nil {
		return true
	}
	defer func() { _ = image.Close() }()
	_, err = basemark.Has(image.File(), basemark.UUID{})
	return errors.Is(err, basemark.ErrUnsupported)
}
