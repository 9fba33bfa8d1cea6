package snapshot

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"sync"
)

// A label follows the header in chunk 0. The kernel reads only the header. It overwrites
// the label when it makes or invalidates a store.
//
// The fields of the label are in one sector, so that a write of it is not torn. The path
// of the origin is behind it and never changes.
const (
	atLabel     = sectorSize
	labelSize   = sectorSize
	atChecksum  = 8
	atFlags     = 12
	atUUID      = 16
	atOrigin    = 32 // size of the origin in bytes
	atParent    = 40 // UUID of the store that is the origin
	atPathSize  = 56
	atPathSum   = 60
	atLabelRest = 64
	atPath      = atLabel + labelSize

	flagFrozen = 1
	flagVerity = 2
)

// MaxOriginPath is the maximum length of the path in a label.
const MaxOriginPath = HeaderBlock - atPath

var labelSignature = []byte("ublkcow\x01")

// ErrLabel is returned for a label that is damaged, or has unknown fields.
var ErrLabel = errors.New("damaged label of a snapshot store")

// UUID identifies a store.
type UUID [16]byte

// NewUUID returns a random UUID (version 4).
func NewUUID() (u UUID) {
	_, _ = rand.Read(u[:]) // never fails
	u[6], u[8] = u[6]&0x0f|0x40, u[8]&0x3f|0x80
	return u
}

// IsZero reports whether there is no UUID.
func (u UUID) IsZero() bool { return u == UUID{} }

// String returns the UUID in the usual form.
func (u UUID) String() string {
	h := hex.EncodeToString(u[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// A Label identifies a store and its origin. The target of the kernel ignores it.
type Label struct {
	UUID UUID
	// Frozen says that other stores need the contents of this one.
	Frozen     bool
	OriginSize uint64
	// Verity says that the origin is checked against a hash tree of dm-verity when it is read. If
	// the changes were merged into it, nothing of it could be read.
	Verity bool
	// OriginPath is where the origin was when the store was made. It is a hint: anyone who
	// could write to the store can have written it.
	OriginPath string
	// Parent is the UUID of the store at OriginPath. It is zero if the origin is an image.
	Parent UUID
}

// ParseLabel returns the label in the first HeaderBlock bytes of a store, or nil if the
// store has none. The error wraps ErrLabel.
func ParseLabel(block []byte) (*Label, error) {
	b := block[atLabel:atPath]
	if isZero(b) {
		return nil, nil
	}
	if !bytes.HasPrefix(b, labelSignature) {
		return nil, fmt.Errorf("%w: unknown signature", ErrLabel)
	}
	if binary.LittleEndian.Uint32(b[atChecksum:]) != labelSum(b) {
		return nil, fmt.Errorf("%w: wrong checksum", ErrLabel)
	}
	flags, size := binary.LittleEndian.Uint32(b[atFlags:]), binary.LittleEndian.Uint32(b[atPathSize:])
	if flags&^(flagFrozen|flagVerity) != 0 || size > MaxOriginPath || !isZero(b[atLabelRest:]) {
		return nil, fmt.Errorf("%w: unknown fields", ErrLabel)
	}
	path := block[atPath:][:size]
	if crc32.Checksum(path, castagnoli()) != binary.LittleEndian.Uint32(b[atPathSum:]) {
		return nil, fmt.Errorf("%w: wrong checksum of the path", ErrLabel)
	}
	return &Label{
		UUID: UUID(b[atUUID:atOrigin]), Frozen: flags&flagFrozen != 0, Verity: flags&flagVerity != 0, OriginSize: binary.LittleEndian.Uint64(b[atOrigin:]),
		OriginPath: string(path), Parent: UUID(b[atParent:atPathSize]),
	}, nil
}

// Put writes the label into the first HeaderBlock bytes of a store, whose other bytes stay.
func (l *Label) Put(block []byte) error {
	if len(l.OriginPath) > MaxOriginPath {
		return fmt.Errorf("path of the origin: %d bytes, the maximum is %d: %w", len(l.OriginPath), MaxOriginPath, ErrLabel)
	}
	b := block[atLabel:atPath]
	clear(block[atLabel:HeaderBlock])
	copy(b, labelSignature)
	flags := uint32(0)
	if l.Frozen {
		flags |= flagFrozen
	}
	if l.Verity {
		flags |= flagVerity
	}
	binary.LittleEndian.PutUint32(b[atFlags:], flags)
	copy(b[atUUID:], l.UUID[:])
	binary.LittleEndian.PutUint64(b[atOrigin:], l.OriginSize)
	copy(b[atParent:], l.Parent[:])
	copy(block[atPath:], l.OriginPath)
	binary.LittleEndian.PutUint32(b[atPathSize:], uint32(len(l.OriginPath)))
	binary.LittleEndian.PutUint32(b[atPathSum:], crc32.Checksum([]byte(l.OriginPath), castagnoli()))
	binary.LittleEndian.PutUint32(b[atChecksum:], labelSum(b))
	return nil
}

// ClearLabel removes the label from the first HeaderBlock bytes of a store.
func ClearLabel(block []byte) { clear(block[atLabel:HeaderBlock]) }

// castagnoli is made when it is first needed: that takes half a millisecond, which every start
// of a program would pay.
var castagnoli = sync.OnceValue(func() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) })

// labelSum returns the checksum of a label.
func labelSum(b []byte) uint32 {
	sum := crc32.Update(0, castagnoli(), b[:atChecksum])
	return crc32.Update(sum, castagnoli(), b[atFlags:])
}
