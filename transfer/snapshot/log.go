package snapshot

import (
	"encoding/binary"
	"fmt"
	"io"
)

// A Write is bytes for a place of the store. Place and length are multiples of the block
// size of the Log.
type Write struct {
	Offset int64
	Data   []byte
}

// A Range is a part of the store in bytes.
type Range struct {
	Offset int64
	Length int64
}

// A Batch makes records durable. The caller writes the data of the chunks, zeroes Zero
// unless its length is 0, and flushes; then it writes Records and flushes. If all of
// this succeeds, it calls Log.Commit, otherwise Log.Revert.
type Batch struct {
	Zero    Range // the next area, if the records fill this one; or stale records
	Records Write // blocks of this area that have changed; the bytes are those of the Log
	Count   int   // number of records in the batch; 0 if it only removes stale records
}

// A Log appends records to a store. It has the current area, or the part of it where the
// next records belong, in memory of the caller.
//
// Records without a predecessor can be on the medium after a torn write, or after Revert.
// They would belong to the list as soon as the records before them have been
// written. Therefore the first batch removes them and does nothing else.
type Log struct {
	layout Layout
	block  int
	area   uint64
	used   int    // records that are durable
	staged int    // records that the current batch adds; negative if it removes records
	dirty  int    // end of the records that the medium may have
	lost   int    // first durable record that the medium may lack, after a removal that failed
	first  int    // the first record in b, which begins a block
	b      []byte // a part of the current area, and nothing behind its end
	backup []byte // the records that the current batch removes
}

// NewLog returns the log of a store that was loaded, or of a new store with the zero
// state. The memory is a number of blocks, at most one chunk, aligned as the caller's writes
// need it. A batch has at most as many records as fit into it. Last, Remove and Back need a
// whole chunk (Widen). The block size is a power of 2, at least 16 and not larger than a
// chunk.
func NewLog(l Layout, s State, memory []byte, blockSize int) (*Log, error) {
	if blockSize < recordSize || blockSize > int(l.ChunkSize()) || blockSize&(blockSize-1) != 0 {
		return nil, fmt.Errorf("blocks of %d bytes in chunks of %d: %w", blockSize, l.ChunkSize(), ErrChunkSize)
	}
	if n := len(memory); n == 0 || n%blockSize != 0 || n > int(l.ChunkSize()) {
		return nil, fmt.Errorf("memory of %d bytes for an area of %d: %w", n, l.ChunkSize(), ErrChunkSize)
	}
	g := &Log{layout: l, block: blockSize, area: s.Area, used: int(s.Used), b: memory}
	g.dirty, g.lost = g.used, g.used
	for i := g.used; i < len(s.area)/recordSize; i++ {
		if !isZero(s.area[i*recordSize:][:recordSize]) {
			g.dirty = i + 1
		}
	}
	clear(memory)
	if !g.isWhole() {
		g.first = g.blockOf(g.used)
	}
	if g.used > g.first {
		copy(memory, s.area[g.first*recordSize:g.used*recordSize])
	}
	return g, nil
}

// isWhole reports whether the memory has a whole area.
func (g *Log) isWhole() bool { return len(g.b) == int(g.layout.ChunkSize()) }

// blockOf returns the first record of the block of a record.
func (g *Log) blockOf(record int) int { return record &^ (g.block/recordSize - 1) }

// end returns the end of the records that the memory has room for.
func (g *Log) end() int { return min(g.first+len(g.b)/recordSize, int(g.layout.Records())) }

// at returns the memory from a record on.
func (g *Log) at(record int) []byte { return g.b[(record-g.first)*recordSize:] }

// Widen gives the log memory for a whole area, and reads the current one. The size is that of
// NewLog. There is no batch.
func (g *Log) Widen(r io.ReaderAt, memory []byte) error {
	if len(memory) != int(g.layout.ChunkSize()) {
		return fmt.Errorf("memory of %d bytes for an area of %d: %w", len(memory), g.layout.ChunkSize(), ErrChunkSize)
	}
	if g.isWhole() {
		return nil
	}
	clear(memory)
	if g.used > 0 {
		if err := readFull(r, memory, g.layout.Offset(g.layout.Area(g.area))); err != nil {
			return err
		}
		clear(memory[g.used*recordSize:])
	}
	g.b, g.first = memory, 0
	return nil
}

// Area returns the number of the area where the next record belongs.
func (g *Log) Area() uint64 { return g.area }

// Records returns the number of records that are durable.
func (g *Log) Records() uint64 { return g.area*uint64(g.layout.Records()) + uint64(g.used) }

// Append puts the first records into a batch, at most as many as fit into the current
// area. The batch is valid until Commit or Revert, and no other begins before.
func (g *Log) Append(records []Record) Batch {
	if g.dirty > g.used {
		return g.removeStale()
	}
	g.staged = min(len(records), g.end()-g.used)
	for i, e := range records[:g.staged] {
		b := g.at(g.used + i)
		binary.LittleEndian.PutUint64(b, e.Old)
		binary.LittleEndian.PutUint64(b[8:], e.New)
	}
	end := g.used + g.staged
	batch := Batch{Count: g.staged}
	if g.lost != end {
		batch.Records = g.blocks(g.lost, end)
	}
	if end == int(g.layout.Records()) {
		batch.Zero = Range{g.layout.Offset(g.layout.Area(g.area + 1)), int64(g.layout.ChunkSize())}
	}
	return batch
}

// removeStale returns the batch that removes the records without a predecessor.
func (g *Log) removeStale() Batch {
	end := g.end()
	b := Batch{Records: g.blocks(g.lost, min(g.dirty, end))}
	if g.dirty > end {
		behind := g.blockOf(g.dirty-1) + g.block/recordSize - end
		b.Zero = Range{g.offset(end), int64(behind * recordSize)}
	}
	return b
}

// offset returns the place of a record of the current area in the store.
func (g *Log) offset(record int) int64 {
	return g.layout.Offset(g.layout.Area(g.area)) + int64(record*recordSize)
}

// blocks returns the blocks of records first to end-1.
func (g *Log) blocks(first, end int) Write {
	from, to := g.blockOf(first), g.blockOf(end-1)+g.block/recordSize
	return Write{g.offset(from), g.at(from)[:(to-from)*recordSize]}
}

// Commit says that the batch is durable.
func (g *Log) Commit() {
	g.used, g.staged = g.used+g.staged, 0
	if g.used == int(g.layout.Records()) {
		clear(g.b)
		g.area, g.used, g.first = g.area+1, 0, 0
	}
	g.dirty, g.lost = g.used, g.used
	if first := g.blockOf(g.used); first > g.first && !g.isWhole() {
		n := copy(g.b, g.at(first)[:(g.used-first)*recordSize])
		clear(g.b[n:])
		g.first = first
	}
}

// InDoubt reports whether the medium may lack records, because their removal has failed. The
// next batch writes them again, also if it has no new records.
func (g *Log) InDoubt() bool { return g.lost < g.used }

// Revert undoes a batch in memory, because a write or flush failed. The medium can have the
// list before or after the batch, or anything between, until another batch has succeeded.
func (g *Log) Revert() {
	if g.staged < 0 {
		copy(g.at(g.used+g.staged), g.backup)
		g.lost = min(g.lost, g.used+g.staged)
		g.staged = 0
		return
	}
	clear(g.at(g.used))
	g.dirty, g.staged = max(g.dirty, g.used+g.staged), 0
}
