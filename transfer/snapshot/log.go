package snapshot

import (
	"encoding/binary"
	"fmt"
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
	Zero    Range // the next area, if the records fill this one
	Records Write // blocks of this area that have changed; the bytes are those of the Log
	Count   int   // number of records in the batch; 0 if it only removes stale records
}

// A Log appends records to a store. It has the current area in memory of the caller.
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
	b      []byte // the current area
	backup []byte // the records that the current batch removes
}

// NewLog returns the log of a store that was loaded, or of a new store with the zero
// state. The memory is one chunk, aligned as the caller's writes need it. The block
// size is a power of 2, at least 16 and not larger than a chunk.
func NewLog(l Layout, s State, memory []byte, blockSize int) (*Log, error) {
	if len(memory) != int(l.ChunkSize()) {
		return nil, fmt.Errorf("memory of %d bytes for an area of %d: %w", len(memory), l.ChunkSize(), ErrChunkSize)
	}
	if blockSize < recordSize || blockSize > len(memory) || blockSize&(blockSize-1) != 0 {
		return nil, fmt.Errorf("blocks of %d bytes in chunks of %d: %w", blockSize, l.ChunkSize(), ErrChunkSize)
	}
	clear(memory[copy(memory, s.area):])
	g := &Log{layout: l, block: blockSize, area: s.Area, used: int(s.Used), b: memory}
	g.dirty = g.used
	for i := g.used; i < int(l.Records()); i++ {
		if !isZero(g.b[i*recordSize:][:recordSize]) {
			g.dirty = i + 1
		}
	}
	clear(g.b[g.used*recordSize:])
	return g, nil
}

// Area returns the number of the area where the next record belongs.
func (g *Log) Area() uint64 { return g.area }

// Records returns the number of records that are durable.
func (g *Log) Records() uint64 { return g.area*uint64(g.layout.Records()) + uint64(g.used) }

// Append puts the first records into a batch, at most as many as fit into the current
// area. The batch is valid until Commit or Revert, and no other begins before.
func (g *Log) Append(records []Record) Batch {
	if g.dirty > g.used {
		return Batch{Records: g.blocks(g.used, g.dirty)}
	}
	g.staged = min(len(records), int(g.layout.Records())-g.used)
	for i, e := range records[:g.staged] {
		b := g.b[(g.used+i)*recordSize:]
		binary.LittleEndian.PutUint64(b, e.Old)
		binary.LittleEndian.PutUint64(b[8:], e.New)
	}
	end := g.used + g.staged
	batch := Batch{Count: g.staged}
	if g.staged != 0 {
		batch.Records = g.blocks(g.used, end)
	}
	if end == int(g.layout.Records()) {
		batch.Zero = Range{g.layout.Offset(g.layout.Area(g.area + 1)), int64(g.layout.ChunkSize())}
	}
	return batch
}

// blocks returns the blocks of records first to end-1.
func (g *Log) blocks(first, end int) Write {
	from := first * recordSize &^ (g.block - 1)
	to := (end*recordSize + g.block - 1) &^ (g.block - 1)
	return Write{g.layout.Offset(g.layout.Area(g.area)) + int64(from), g.b[from:to]}
}

// Commit says that the batch is durable.
func (g *Log) Commit() {
	g.used, g.staged = g.used+g.staged, 0
	if g.used == int(g.layout.Records()) {
		clear(g.b)
		g.area, g.used = g.area+1, 0
	}
	g.dirty = g.used
}

// Revert undoes a batch in memory, because a write or flush failed. The medium can have the
// list before or after the batch, or anything between, until another batch has succeeded.
func (g *Log) Revert() {
	if g.staged < 0 {
		copy(g.b[(g.used+g.staged)*recordSize:], g.backup)
		g.staged = 0
		return
	}
	clear(g.b[g.used*recordSize:])
	g.dirty, g.staged = max(g.dirty, g.used+g.staged), 0
}
