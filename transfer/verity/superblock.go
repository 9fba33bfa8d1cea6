package verity

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
)

// SuperblockSize is the length of a superblock in bytes. Its offset is a
// multiple of this.
const SuperblockSize = 512

// Offsets of the fields (struct verity_sb in cryptsetup's lib/verity/verity.c).
// All numbers are little-endian.
const (
	atVersion       = 8
	atHashType      = 12
	atUUID          = 16
	atAlgorithm     = 32
	atDataBlockSize = 64
	atHashBlockSize = 68
	atDataBlocks    = 72
	atSaltSize      = 80
	atPadding       = 82
	atSalt          = 88
	atSecondPadding = atSalt + MaxSalt
)

// signature begins a superblock.
var signature = []byte("verity\x00\x00")

// Versions that are supported: of the superblock, and of the tree. Version 0 of
// the tree is that of the original Chrome OS.
const (
	superblockVersion = 1
	hashType          = 1
)

// A Superblock describes a tree and its data. It precedes the tree in the hash
// area.
type Superblock struct {
	UUID UUID
	Params
}

// ParseSuperblock reads a superblock from the first 512 bytes of b and checks
// every field. The error wraps ErrNoSuperblock, ErrInvalid, ErrUnsupported or
// ErrTooLarge.
func ParseSuperblock(b []byte) (*Superblock, error) {
	if len(b) < SuperblockSize || !bytes.HasPrefix(b, signature) {
		return nil, ErrNoSuperblock
	}
	b = b[:SuperblockSize]
	if v := binary.LittleEndian.Uint32(b[atVersion:]); v != superblockVersion {
		return nil, fmt.Errorf("verity superblock of version %d: %w", v, ErrUnsupported)
	}
	if v := binary.LittleEndian.Uint32(b[atHashType:]); v != hashType {
		return nil, fmt.Errorf("verity hash type %d: only %d: %w", v, hashType, ErrUnsupported)
	}
	saltSize := int(binary.LittleEndian.Uint16(b[atSaltSize:]))
	if saltSize > MaxSalt {
		return nil, fmt.Errorf("verity superblock: salt of %d bytes, the maximum is %d: %w", saltSize, MaxSalt, ErrInvalid)
	}
	name, _, _ := bytes.Cut(b[atAlgorithm:atDataBlockSize], []byte{0})
	s := &Superblock{
		UUID: UUID(b[atUUID:atAlgorithm]),
		Params: Params{
			Algorithm:     strings.ToLower(string(name)), // as veritysetup does
			DataBlockSize: binary.LittleEndian.Uint32(b[atDataBlockSize:]),
			HashBlockSize: binary.LittleEndian.Uint32(b[atHashBlockSize:]),
			DataBlocks:    binary.LittleEndian.Uint64(b[atDataBlocks:]),
			Salt:          bytes.Clone(b[atSalt:][:saltSize]),
		},
	}
	if err := checkUnused(b, len(name), saltSize); err != nil {
		return nil, err
	}
	if _, err := s.check(); err != nil {
		return nil, fmt.Errorf("verity superblock: %w", err)
	}
	return s, nil
}

// checkUnused returns an error unless all bytes without a meaning are zero.
// veritysetup ignores them, but never writes another value.
func checkUnused(b []byte, nameSize, saltSize int) error {
	for _, unused := range [][]byte{
		b[atAlgorithm+nameSize : atDataBlockSize],
		b[atPadding:atSalt],
		b[atSalt+saltSize : atSecondPadding],
		b[atSecondPadding:],
	} {
		if !isZero(unused) {
			return fmt.Errorf("verity superblock: unused bytes are not zero: %w", ErrInvalid)
		}
	}
	return nil
}

// Bytes returns the superblock as veritysetup writes it. The error is that of
// ParseSuperblock for the same values.
func (s *Superblock) Bytes() ([]byte, error) {
	if _, err := s.check(); err != nil {
		return nil, err
	}
	b := make([]byte, SuperblockSize)
	copy(b, signature)
	binary.LittleEndian.PutUint32(b[atVersion:], superblockVersion)
	binary.LittleEndian.PutUint32(b[atHashType:], hashType)
	copy(b[atUUID:], s.UUID[:])
	copy(b[atAlgorithm:], s.Algorithm)
	binary.LittleEndian.PutUint32(b[atDataBlockSize:], s.DataBlockSize)
	binary.LittleEndian.PutUint32(b[atHashBlockSize:], s.HashBlockSize)
	binary.LittleEndian.PutUint64(b[atDataBlocks:], s.DataBlocks)
	binary.LittleEndian.PutUint16(b[atSaltSize:], uint16(len(s.Salt)))
	copy(b[atSalt:], s.Salt)
	return b, nil
}

// isZero reports whether all bytes are zero.
func isZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
