package snapshot

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// medium is a disk with a volatile cache: after a power cut it has everything that was
// flushed, and any of the sectors that were written later.
type medium struct {
	l        Layout
	durable  []byte
	volatile map[int64][]byte // sectors since the last flush
	spare    bytesAt          // memory for the next cut
}

func newMedium(l Layout, size int, random *rand.Rand) *medium {
	m := &medium{l: l, durable: make([]byte, size), volatile: map[int64][]byte{}}
	for i := range m.durable { // whatever was there before
		m.durable[i] = byte(random.Uint32())
	}
	return m
}

func (m *medium) WriteAt(b []byte, at int64) (int, error) {
	for i := 0; i < len(b); i += sectorSize {
		m.volatile[at+int64(i)] = append([]byte(nil), b[i:i+sectorSize]...)
	}
	return len(b), nil
}

func (m *medium) Sync() error {
	for at, b := range m.volatile {
		copy(m.durable[at:], b)
	}
	clear(m.volatile)
	return nil
}

// cut returns the bytes after a power cut.
func (m *medium) cut(random *rand.Rand) bytesAt {
	after := append(m.spare[:0], m.durable...)
	m.spare = nil
	for at, b := range m.volatile {
		if random.Uint32()&1 == 0 {
			copy(after[at:], b)
		}
	}
	return after
}

type bytesAt []byte

func (b bytesAt) ReadAt(p []byte, at int64) (int, error) { return copy(p, b[at:]), nil }

// A power cut within Format leaves no header, or an empty store with its label.
func TestPowerCutInFormat(t *testing.T) {
	label := Label{UUID: NewUUID(), OriginSize: 5, OriginPath: "/srv/base.img"}
	l := layoutOf(t, MinChunkSize)
	random := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		m := newMedium(l, 4*MinChunkSize, random)
		cuts := &cutting{medium: m, random: random}
		if err := FormatLabelled(cuts, l, &label); err != nil {
			t.Fatal(err)
		}
		for i, after := range append(cuts.after, m.cut(random)) {
			h, got, err := ReadLabelled(after)
			if last := i == len(cuts.after); err != nil && !last {
				continue
			}
			if err != nil || h != (Header{true, l}) || got == nil || *got != label {
				t.Fatalf("step %d: %+v, label %+v, error %v", i, h, got, err)
			}
			if s, _, err := loaded(after, l, 4*MinChunkSize); err != nil || s.Records(l) != 0 {
				t.Fatalf("step %d: %d records, error %v", i, s.Records(l), err)
			}
		}
	}
}

// cutting takes what a power cut would leave after each write and before each flush.
type cutting struct {
	*medium
	random *rand.Rand
	after  []bytesAt
}

func (c *cutting) WriteAt(b []byte, at int64) (int, error) {
	n, err := c.medium.WriteAt(b, at)
	c.after = append(c.after, c.cut(c.random))
	return n, err
}

// After a power cut at any step, a store has every record that was committed, and of the
// batch in flight only the first records. Each record leads to its data. This also holds
// if the store is used again and the power is cut again, and after failed batches.
func TestPowerCutInLog(t *testing.T) {
	l := layoutOf(t, MinChunkSize)
	random := rand.New(rand.NewPCG(3, 4))
	for round := range 10 {
		m := newMedium(l, 600*MinChunkSize, random)
		if err := Format(m, l); err != nil {
			t.Fatal(err)
		}
		w := &writer{t: t, l: l, m: m, random: random, block: sectorSize << (round % 4)}
		// Of 10 rounds, 4 have an area in memory, 3 a block of it, and 3 two blocks.
		w.memory = int(l.ChunkSize())
		if round >= 4 {
			w.memory = min(w.memory, w.block*(1+round%2))
		}
		w.open()
		for w.alloc.Left() >= maxBatch {
			w.batch()
		}
	}
}

// writer appends records and checks what a power cut leaves.
type writer struct {
	t      *testing.T
	l      Layout
	m      *medium
	random *rand.Rand
	block  int
	memory int // of the log
	log    *Log
	alloc  *Allocator
	list   []Record // all committed records
	failed []Record // records of a batch that failed; they can be on the medium until they are removed
	old    uint64
}

// open loads the store as it is, and continues with it.
func (w *writer) open() {
	w.t.Helper()
	size := uint64(len(w.m.durable))
	s, _, err := loaded(bytesAt(w.m.durable), w.l, size)
	if err != nil {
		w.t.Fatal(err)
	}
	if w.log, err = NewLog(w.l, s, make([]byte, w.memory), w.block); err != nil {
		w.t.Fatal(err)
	}
	w.alloc = NewAllocator(w.l, size, s)
}

const maxBatch = 60

// batch appends up to maxBatch records. One in four batches is cut or fails at a random step.
func (w *writer) batch() {
	w.t.Helper()
	records := make([]Record, 1+w.random.IntN(maxBatch))
	for i := range records {
		chunk, err := w.alloc.Allocate()
		if err != nil {
			w.t.Fatal(err)
		}
		records[i] = Record{w.old, chunk}
		w.old++
		w.write(w.data(records[i]), w.l.Offset(chunk))
	}
	for len(records) > 0 {
		b := w.log.Append(records)
		if w.steps(b, records[:b.Count]) {
			return
		}
		w.log.Commit()
		w.failed = nil
		w.list = append(w.list, records[:b.Count]...)
		records = records[b.Count:]
		w.check(bytesAt(w.m.durable), nil)
	}
}

// data is what the chunk of a record contains.
func (w *writer) data(e Record) []byte {
	return bytes.Repeat([]byte{byte(e.Old*7 + e.New + 1)}, int(w.l.ChunkSize()))
}

func (w *writer) write(b []byte, at int64) { _, _ = w.m.WriteAt(b, at) }

// steps carries out a batch, and reports whether it ended early.
func (w *writer) steps(b Batch, records []Record) (over bool) {
	w.write(make([]byte, b.Zero.Length), b.Zero.Offset)
	if w.ends(records) {
		return true
	}
	_ = w.m.Sync()
	w.write(b.Records.Data, b.Records.Offset)
	if w.ends(records) {
		return true
	}
	_ = w.m.Sync()
	return false
}

// ends decides whether the batch fails or the power is cut here.
func (w *writer) ends(records []Record) bool {
	w.t.Helper()
	records = append(append([]Record(nil), w.failed...), records...)
	after := w.m.cut(w.random)
	w.check(after, records)
	w.m.spare = after
	switch w.random.IntN(8) {
	case 0: // the flush failed: any part of the writes is on the medium
		w.m.durable = w.m.cut(w.random)
		clear(w.m.volatile)
		w.log.Revert()
		w.failed = records
		w.check(bytesAt(w.m.durable), records)
		return true
	case 1:
		w.m.durable = w.m.cut(w.random)
		clear(w.m.volatile)
		w.check(bytesAt(w.m.durable), records)
		w.open()
		w.keep(records)
		w.failed = nil
		return true
	}
	return false
}

// keep adds the records to the list that survived the power cut.
func (w *writer) keep(records []Record) {
	n := int(w.log.Records()) - len(w.list)
	w.list = append(w.list, records[:n]...)
}

// check compares a store with the list, which may continue with the first of some
// records.
func (w *writer) check(after bytesAt, maybe []Record) {
	w.t.Helper()
	var got []Record
	if _, err := Scan(after, w.l, uint64(len(after)), func(e Record) error { got = append(got, e); return nil }); err != nil {
		w.t.Fatal(err)
	}
	want := append(append([]Record(nil), w.list...), maybe...)
	if len(got) < len(w.list) || len(got) > len(want) {
		w.t.Fatalf("%d records, want %d to %d", len(got), len(w.list), len(want))
	}
	for i, e := range got {
		if e != want[i] {
			w.t.Fatalf("record %d is %v, want %v", i, e, want[i])
		}
		if data := after[w.l.Offset(e.New):][:w.l.ChunkSize()]; !bytes.Equal(data, w.data(e)) {
			w.t.Fatalf("record %d leads to other data", i)
		}
	}
}
