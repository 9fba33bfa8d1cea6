package snapshot

import (
	"fmt"
	"math/bits"
)

// Limits of the size of a chunk in bytes. The kernel also takes smaller and larger chunks;
// lvcreate makes chunks of 4 to 512 KiB.
const (
	MinChunkSize = 4 << 10
	MaxChunkSize = 1 << 20
)

const (
	sectorSize   = 512
	recordSize   = 16
	headerChunks = 1 // chunks before the first area
	// firstFree is the first data chunk: it follows the header and the first area.
	firstFree = headerChunks + 1
)

// MaxChunks is the largest number of chunks of an origin or a store, so that a Slot can hold
// every number of a chunk, and the states besides.
const MaxChunks = 1<<31 - 2

// A Layout is the division of a store into areas and data chunks. It depends only on the
// size of a chunk. The zero value is not a layout.
type Layout struct {
	shift uint8 // the size of a chunk is 1 << shift
}

// NewLayout returns the layout for a chunk size in bytes.
func NewLayout(chunkSize uint32) (Layout, error) {
	if chunkSize < MinChunkSize || chunkSize > MaxChunkSize || bits.OnesCount32(chunkSize) != 1 {
		return Layout{}, fmt.Errorf("%d bytes, not a power of 2 from %d to %d: %w", chunkSize, MinChunkSize, MaxChunkSize, ErrChunkSize)
	}
	return Layout{uint8(bits.TrailingZeros32(chunkSize))}, nil
}

// ChunkSize returns the size of a chunk in bytes.
func (l Layout) ChunkSize() uint32 { return 1 << l.shift }

// Shift returns the binary logarithm of the size of a chunk.
func (l Layout) Shift() uint { return uint(l.shift) }

// RecordSize is the length of a record in an area.
const RecordSize = recordSize

// Records returns the number of records in an area, which is also the number of data
// chunks after it.
func (l Layout) Records() uint32 { return l.ChunkSize() / recordSize }

// stride returns the distance of two areas in chunks.
func (l Layout) stride() uint64 { return uint64(l.Records()) + 1 }

// Offset returns the place of a chunk of the store in bytes.
func (l Layout) Offset(chunk uint64) int64 { return int64(chunk << l.shift) }

// Area returns the chunk of an area.
func (l Layout) Area(area uint64) uint64 { return headerChunks + l.stride()*area }

// DataChunk returns the k-th chunk that can contain data, from 0.
func (l Layout) DataChunk(k uint64) uint64 { return firstFree + k + k/uint64(l.Records()) }

// IsMetadata reports whether a chunk is the header or an area.
func (l Layout) IsMetadata(chunk uint64) bool { return chunk < headerChunks || l.isArea(chunk) }

func (l Layout) isArea(chunk uint64) bool { return chunk%l.stride() == headerChunks }

// OriginChunks returns the number of chunks of an origin. The last one may be incomplete.
func (l Layout) OriginChunks(size uint64) (uint64, error) {
	n := size >> l.shift
	if size&uint64(l.ChunkSize()-1) != 0 {
		n++
	}
	if n > MaxChunks {
		return 0, fmt.Errorf("origin of %d chunks: %w", n, ErrTooLarge)
	}
	return n, nil
}

// StoreChunks returns the number of chunks of a store. An incomplete chunk at the end
// is not used, and neither are chunks whose number has more than 31 bits.
func (l Layout) StoreChunks(size uint64) uint64 { return min(size>>l.shift, MaxChunks) }

// StoreSize returns the size of a store in which each of some chunks can have an
// exception.
func (l Layout) StoreSize(chunks uint64) uint64 {
	if chunks == 0 {
		return firstFree << l.shift
	}
	end := l.DataChunk(chunks-1) + 1
	if l.isArea(end) {
		end++ // Allocate does not give out the last chunk before a missing area
	}
	return end << l.shift
}
