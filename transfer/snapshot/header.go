package snapshot

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// HeaderSize is the length of a header in bytes.
const HeaderSize = 16

// HeaderBlock is the length of the write that writes or invalidates a header. Each chunk
// is at least as long, and no disk has larger logical blocks.
const HeaderBlock = 4096

const (
	signature = 0x70416e53 // "SnAp"
	version   = 1

	atValid     = 4
	atVersion   = 8
	atChunkSize = 12
)

// A Header says what a store is.
type Header struct {
	// Valid is false after the store was full, or could not be written. Every later use
	// fails with EIO.
	Valid  bool
	Layout Layout // the header decides, not the table
}

// ParseHeader reads a header. The error wraps ErrNew if there is none, because the
// kernel makes a new store there, ErrNoStore, ErrVersion or ErrChunkSize.
func ParseHeader(b []byte) (Header, error) {
	if len(b) < HeaderSize {
		return Header{}, io.ErrUnexpectedEOF
	}
	switch s := binary.LittleEndian.Uint32(b); s {
	case signature:
	case 0:
		return Header{}, ErrNew
	default:
		return Header{}, fmt.Errorf("signature %08x: %w", s, ErrNoStore)
	}
	if v := binary.LittleEndian.Uint32(b[atVersion:]); v != version {
		return Header{}, fmt.Errorf("snapshot store of version %d: %w", v, ErrVersion)
	}
	sectors := binary.LittleEndian.Uint32(b[atChunkSize:])
	if sectors > MaxChunkSize/sectorSize {
		return Header{}, fmt.Errorf("%d sectors: %w", sectors, ErrChunkSize)
	}
	layout, err := NewLayout(sectors * sectorSize)
	if err != nil {
		return Header{}, err
	}
	return Header{Valid: binary.LittleEndian.Uint32(b[atValid:]) != 0, Layout: layout}, nil
}

// ReadHeader reads the header of a store.
func ReadHeader(r io.ReaderAt) (Header, error) {
	b := make([]byte, HeaderBlock) // a whole block, for direct I/O
	if err := readFull(r, b, 0); err != nil {
		return Header{}, fmt.Errorf("header of the snapshot store: %w", err)
	}
	return ParseHeader(b)
}

// IsStore reports whether a file or disk begins with a header that ParseHeader reads. One that is
// too short for a header is no store. The error is that of the read.
func IsStore(r io.ReaderAt) (bool, error) {
	_, err := ReadHeader(r)
	switch {
	case err == nil:
		return true, nil
	case isRefused(err), errors.Is(err, io.ErrUnexpectedEOF):
		return false, nil
	}
	return false, err
}

// isRefused reports whether an error of ReadHeader is one of ParseHeader.
func isRefused(err error) bool {
	return errors.Is(err, ErrNew) || errors.Is(err, ErrNoStore) || errors.Is(err, ErrVersion) || errors.Is(err, ErrChunkSize)
}

// ReadLabelled reads the header of a store and its label, which is nil if there is none. The
// error can also wrap ErrLabel; the header is then valid.
func ReadLabelled(r io.ReaderAt) (Header, *Label, error) {
	b := make([]byte, HeaderBlock)
	if err := readFull(r, b, 0); err != nil {
		return Header{}, nil, fmt.Errorf("header of the snapshot store: %w", err)
	}
	h, err := ParseHeader(b)
	if err != nil {
		return Header{}, nil, err
	}
	label, err := ParseLabel(b)
	return h, label, err
}

// Append appends the header to b.
func (h Header) Append(b []byte) []byte {
	valid := uint32(0)
	if h.Valid {
		valid = 1
	}
	b = binary.LittleEndian.AppendUint32(b, signature)
	b = binary.LittleEndian.AppendUint32(b, valid)
	b = binary.LittleEndian.AppendUint32(b, version)
	return binary.LittleEndian.AppendUint32(b, h.Layout.ChunkSize()/sectorSize)
}

// readFull reads all of b.
func readFull(r io.ReaderAt, b []byte, at int64) error {
	n, err := r.ReadAt(b, at)
	if n == len(b) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
