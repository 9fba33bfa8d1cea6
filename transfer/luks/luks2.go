package luks

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
)

// luks2BinarySize is the size of the binary header in bytes. The JSON area
// follows it (LUKS2 2.1).
const luks2BinarySize = 4096

// luks2Sizes are the valid sizes of a copy of the header, binary and JSON
// together, in bytes. The secondary copy begins where the primary copy ends
// (LUKS2 2.1, table 1).
var luks2Sizes = []uint64{
	0x4000, 0x8000, 0x10000, 0x20000, 0x40000, 0x80000, 0x100000, 0x200000, 0x400000,
}

// A luks2Copy is one of the two copies of a LUKS2 header. Its checksum is
// correct and its JSON well-formed.
type luks2Copy struct {
	size        uint64 // binary header and JSON area, bytes
	sequence    uint64 // higher is newer
	uuid, label string
	root        object
}

// readLUKS2 reads the newer valid copy (LUKS2 4.5).
func (h *Header) readLUKS2(r io.ReaderAt, size uint64) error {
	primary, err := readCopy(r, size, 0)
	offsets := luks2Sizes
	if err == nil {
		offsets = []uint64{primary.size}
	}
	secondary, secondaryErr := readSecondary(r, size, offsets)
	switch {
	case err != nil && secondaryErr != nil:
		return worse(err, secondaryErr)
	case err != nil, secondaryErr == nil && secondary.sequence > primary.sequence:
		h.volume.Secondary = true
		return h.readMetadata(secondary, size)
	}
	return h.readMetadata(primary, size)
}

// readSecondary returns the first valid copy at one of the offsets.
func readSecondary(r io.ReaderAt, size uint64, offsets []uint64) (luks2Copy, error) {
	err := ErrNotLUKS
	for _, offset := range offsets {
		found, readErr := readCopy(r, size, offset)
		if readErr == nil {
			return found, nil
		}
		err = worse(err, readErr)
	}
	return luks2Copy{}, err
}

// worse returns the first error other than ErrNotLUKS.
func worse(a, b error) error {
	if errors.Is(a, ErrNotLUKS) {
		return b
	}
	return a
}

// readCopy reads the copy at offset; offset 0 is the primary copy.
func readCopy(r io.ReaderAt, size, offset uint64) (luks2Copy, error) {
	if size < luks2BinarySize || offset > size-luks2BinarySize {
		return luks2Copy{}, ErrNotLUKS
	}
	binaryHeader := make([]byte, luks2BinarySize)
	if err := readFull(r, binaryHeader, offset); err != nil {
		return luks2Copy{}, err
	}
	length, err := copySize(binaryHeader, offset)
	if err != nil {
		return luks2Copy{}, err
	}
	if length > size-offset {
		return luks2Copy{}, fmt.Errorf("%w: a header of %d bytes at %d", ErrTooSmall, length, offset)
	}
	b := make([]byte, length)
	copy(b, binaryHeader)
	if err := readFull(r, b[luks2BinarySize:], offset+luks2BinarySize); err != nil {
		return luks2Copy{}, err
	}
	return parseCopy(b)
}

// copySize returns the size of the copy that begins with b and lies at offset.
// It checks the fields of b that determine where the copy ends.
func copySize(b []byte, offset uint64) (uint64, error) {
	magic := magicPrimary
	if offset != 0 {
		magic = magicSecondary
	}
	if !bytes.HasPrefix(b, magic) {
		return 0, ErrNotLUKS
	}
	if version := binary.BigEndian.Uint16(b[6:]); version != 2 {
		return 0, fmt.Errorf("LUKS version %d: only 1 or 2: %w", version, ErrUnsupported)
	}
	length, at := binary.BigEndian.Uint64(b[8:]), binary.BigEndian.Uint64(b[256:])
	if at != offset {
		return 0, fmt.Errorf("%w: it is for offset %d, but lies at %d", ErrDamaged, at, offset)
	}
	if !slices.Contains(luks2Sizes, length) || offset != 0 && length != offset {
		return 0, fmt.Errorf("%w: header of %d bytes at %d", ErrDamaged, length, offset)
	}
	return length, nil
}

// parseCopy checks the checksum of a whole copy and parses the copy (LUKS2
// 2.1).
func parseCopy(b []byte) (luks2Copy, error) {
	var text [4]string // label, checksum algorithm, UUID, subsystem
	for i, field := range [][]byte{b[24:72], b[72:104], b[168:208], b[208:256]} {
		var err error
		if text[i], err = cString(field); err != nil {
			return luks2Copy{}, err
		}
	}
	if err := checkSum(b, text[1]); err != nil {
		return luks2Copy{}, err
	}
	root, err := parseArea(b[luks2BinarySize:])
	return luks2Copy{
		size:     uint64(len(b)),
		sequence: binary.BigEndian.Uint64(b[16:]),
		uuid:     printable(text[2]),
		label:    printable(text[0]),
		root:     root,
	}, err
}

// checkSum checks the checksum over a whole copy, and the padding before and
// after it. The checksum field itself counts as zero.
func checkSum(b []byte, algorithm string) error {
	newHash, err := hashNamed(algorithm)
	if err != nil {
		return fmt.Errorf("checksum: %w", err)
	}
	const start, end = 448, 512
	h := newHash()
	h.Write(b[:start])
	h.Write(make([]byte, end-start))
	h.Write(b[end:])
	sum := h.Sum(nil)
	if !bytes.Equal(sum, b[start:][:len(sum)]) {
		return fmt.Errorf("%w: wrong checksum", ErrDamaged)
	}
	for _, padding := range [][]byte{b[264:start], b[start+len(sum) : end], b[end:luks2BinarySize]} {
		if len(bytes.Trim(padding, "\x00")) != 0 {
			return fmt.Errorf("%w: padding that is not zero", ErrDamaged)
		}
	}
	return nil
}

// parseArea parses a JSON area: an object, followed by at least one zero byte
// up to the end of the area (LUKS2 2.2).
func parseArea(area []byte) (object, error) {
	text, rest, found := bytes.Cut(area, []byte{0})
	if !found || len(bytes.Trim(rest, "\x00")) != 0 {
		return object{}, fmt.Errorf("%w: no zeros after the JSON text", ErrDamaged)
	}
	return parseObject(text)
}
