package luks

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// sector is the unit of LUKS1 offsets, of iv_tweak and of the sector numbers
// that key material is encrypted with, in bytes.
const sector = 512

// magicPrimary begins a LUKS1 header and the primary one of LUKS2 (LUKS1 3.1,
// LUKS2 2.1), magicSecondary the other one of LUKS2.
var (
	magicPrimary   = []byte("LUKS\xba\xbe")
	magicSecondary = []byte("SKUL\xba\xbe")
)

// A Header is a LUKS header, checked, with what is needed to unlock it.
type Header struct {
	volume Volume
	// refused is why the volume can't be opened. Set, it leaves volume and
	// slots incomplete.
	refused error
	slots   []keyslot // in the order in which they are tried
}

// Volume returns what the header says of the data. For a volume that can't be
// opened the error wraps ErrUnsupported or ErrNoKeyslot, and only what the
// header has for people is set: Version, UUID, Label, and Cipher if known.
func (h *Header) Volume() (Volume, error) { return h.volume, h.refused }

// Read reads the header of a device or file of size bytes. The error wraps
// ErrNotLUKS, ErrDamaged or ErrTooSmall, ErrUnsupported for a version or a
// checksum that is not known, or what r returned.
//
// A LUKS2 header whose primary copy is gone altogether is found by its second
// one. So that this can't bring back a volume that something else has
// replaced, a caller that tells formats apart looks for the others first.
func Read(r io.ReaderAt, size int64) (*Header, error) {
	if size < luks1Size {
		return nil, ErrNotLUKS
	}
	start := make([]byte, luks1Size)
	err := readFull(r, start, 0)
	h := new(Header)
	if err == nil && bytes.HasPrefix(start, magicPrimary) && binary.BigEndian.Uint16(start[6:]) == 1 {
		err = h.readLUKS1(start, uint64(size))
	} else {
		err = h.readLUKS2(r, uint64(size))
	}
	switch {
	case h.volume.Version == 0: // nothing that Volume could tell
		return nil, err
	case errors.Is(err, ErrUnsupported), errors.Is(err, ErrNoKeyslot):
		h.refused = err
	case err != nil:
		return nil, err
	}
	return h, nil
}

// readFull fills buf from offset, and calls an early end unexpected.
func readFull(r io.ReaderAt, buf []byte, offset uint64) error {
	n, err := r.ReadAt(buf, int64(offset))
	switch {
	case n == len(buf):
		return nil
	case err == io.EOF:
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("read %d bytes at %d: %w", len(buf), offset, err)
}

// cString returns a string that ends at its first zero byte, of which the
// field that holds it must have one (LUKS1 3.1, LUKS2 2.1).
func cString(field []byte) (string, error) {
	text, _, found := bytes.Cut(field, []byte{0})
	if !found {
		return "", fmt.Errorf("%w: a string does not end", ErrDamaged)
	}
	return string(text), nil
}
