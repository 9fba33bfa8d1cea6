package luks

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// sector is the unit, in bytes, of LUKS1 offsets, of iv_tweak, and of the
// sector numbers in the encryption of key material.
const sector = 512

// magicPrimary begins a LUKS1 header and the primary LUKS2 header (LUKS1 3.1,
// LUKS2 2.1). magicSecondary begins the secondary LUKS2 header.
var (
	magicPrimary   = []byte("LUKS\xba\xbe")
	magicSecondary = []byte("SKUL\xba\xbe")
)

// A Header is a checked LUKS header with the data to unlock it.
type Header struct {
	volume Volume
	// dataSize is the size of the device with the data, and detached says that this is not
	// the device with the header.
	dataSize uint64
	detached bool
	// refused says why the volume cannot be opened. If it is set, volume and
	// slots are incomplete.
	refused error
	slots   []keyslot // in the order in which Unlock tries them
}

// keyslotsLimit returns the end of the space for key material, on a device with the header of
// size bytes: the start of the data, unless that is elsewhere.
func (h *Header) keyslotsLimit(size uint64) uint64 {
	if h.detached {
		return size
	}
	return h.volume.Offset
}

// Volume returns the header's description of the data. If the volume cannot be
// opened, the error wraps ErrUnsupported or ErrNoKeyslot, and only the
// descriptive fields are set: Version, UUID, Label, and Cipher if known.
func (h *Header) Volume() (Volume, error) { return h.volume, h.refused }

// Read reads the header of a device or file of size bytes. The error wraps
// ErrNotLUKS, ErrDamaged or ErrTooSmall, ErrUnsupported for an unknown version
// or checksum, or the error of r.
//
// If the primary copy of a LUKS2 header is missing entirely, Read finds the
// secondary copy. This can bring back a volume that another format has
// replaced. To avoid this, a caller that detects formats must look for other
// formats first.
func Read(r io.ReaderAt, size int64) (*Header, error) {
	return (&Header{dataSize: uint64(max(size, 0))}).read(r, size)
}

// ReadDetached is Read for a header in a device or file of its own, of size bytes. The data is
// on a device of dataSize bytes, on which Volume.Offset may be 0.
func ReadDetached(r io.ReaderAt, size int64, dataSize uint64) (*Header, error) {
	return (&Header{dataSize: dataSize, detached: true}).read(r, size)
}

func (h *Header) read(r io.ReaderAt, size int64) (*Header, error) {
	if size < luks1Size {
		return nil, ErrNotLUKS
	}
	start := make([]byte, luks1Size)
	err := readFull(r, start, 0)
	if err == nil && bytes.HasPrefix(start, magicPrimary) && binary.BigEndian.Uint16(start[6:]) == 1 {
		err = h.readLUKS1(start, uint64(size))
	} else {
		err = h.readLUKS2(r, uint64(size))
	}
	switch {
	case h.volume.Version == 0: // Volume would have no information
		return nil, err
	case errors.Is(err, ErrUnsupported), errors.Is(err, ErrNoKeyslot):
		h.refused = err
	case err != nil:
		return nil, err
	}
	return h, nil
}

// readFull fills buf from offset, and returns io.ErrUnexpectedEOF at an early
// end.
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

// cString returns the string up to the first zero byte of a field. The field
// must contain a zero byte (LUKS1 3.1, LUKS2 2.1).
func cString(field []byte) (string, error) {
	text, _, found := bytes.Cut(field, []byte{0})
	if !found {
		return "", fmt.Errorf("%w: a string does not end", ErrDamaged)
	}
	return string(text), nil
}
