package cow

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/transfer/snapshot"
	"github.com/ublk-loop/ublk-loop/transfer/table"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// manyRecords makes the store of an origin with n changed chunks, which are spread over it.
func manyRecords(t *testing.T, chunkSize uint32, origin, n uint64) *os.File {
	t.Helper()
	l, err := snapshot.NewLayout(chunkSize)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "store"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	if err := f.Truncate(l.Offset(l.DataChunk(n)) + 2*int64(chunkSize)); err != nil {
		t.Fatal(err)
	}
	if err := snapshot.Format(f, l); err != nil {
		t.Fatal(err)
	}
	area, each := make([]byte, chunkSize), uint64(l.Records())
	for first := uint64(0); first < n; first += each {
		clear(area)
		for i := first; i < min(first+each, n); i++ {
			b := area[(i-first)*16:]
			binary.LittleEndian.PutUint64(b, i*(origin/uint64(chunkSize)/n))
			binary.LittleEndian.PutUint64(b[8:], l.DataChunk(i))
		}
		if _, err := f.WriteAt(area, l.Offset(l.Area(first/each))); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

// The index of 1 TiB in chunks of 64 KiB takes at most 70 MiB, and the processor loads a million
// exceptions in at most 2 s.
func TestLoadManyRecords(t *testing.T) {
	const origin, n = 1 << 40, 1_000_000
	file := manyRecords(t, 64<<10, origin, n)
	before := ublktest.ProcessorTime(t)
	s, err := Open(file, &Options{Format: table.Persistent, OriginSize: origin, Block: 512})
	if err != nil {
		t.Fatal(err)
	}
	took := ublktest.ProcessorTime(t) - before
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	if got := s.Left(); got != n {
		t.Errorf("%d exceptions, want %d", got, n)
	}
	t.Logf("%d exceptions in %v, index of %.1f MiB", n, took, float64(len(s.index))/(1<<20))
	if len(s.index) > 70<<20 {
		t.Errorf("the index has %d bytes", len(s.index))
	}
	if took > 2*time.Second {
		t.Errorf("loaded in %v", took)
	}
}

// No store is made over data, although the first four bytes are those of an empty file.
func TestOpenKeepsData(t *testing.T) {
	file := memory(t, 64*chunk)
	if _, err := file.WriteAt([]byte("data"), 100<<10); err != nil {
		t.Fatal(err)
	}
	before := contentOf(t, file)
	s, err := Open(file, &Options{Format: table.Persistent, ChunkBytes: chunk, OriginSize: 64 * chunk, Block: 512})
	if err == nil {
		err = s.Close()
	}
	if !errors.Is(err, snapshot.ErrNotEmpty) {
		t.Errorf("error %v, want %v", err, snapshot.ErrNotEmpty)
	}
	if !bytes.Equal(contentOf(t, file), before) {
		t.Error("the file was changed")
	}
}

func contentOf(t *testing.T, file *os.File) []byte {
	t.Helper()
	b, err := io.ReadAll(io.NewSectionReader(file, 0, 64*chunk))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The header of a store chooses the size of a chunk, and so the size of the index. A store whose
// index would take too much of the memory is refused before the index is made.
func TestIndexIsBounded(t *testing.T) {
	before := memoryShare
	memoryShare = 1 << 20
	defer func() { memoryShare = before }()
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		t.Fatal(err)
	}
	limit := info.Totalram * uint64(info.Unit) / memoryShare / slotSize * chunk
	for size, want := range map[uint64]error{limit: nil, limit + chunk: unix.ENOMEM} {
		s, err := Open(memory(t, 1<<20), &Options{Format: table.Persistent, ChunkBytes: chunk, OriginSize: size, Block: 512})
		if !errors.Is(err, want) {
			t.Errorf("origin of %d bytes: error %v, want %v", size, err, want)
		}
		if err == nil {
			err = s.Close()
		}
		if err != nil && want == nil {
			t.Error(err)
		}
	}
}

// All stores of a device have a bound: the second store with the largest index is opened, and no third one.
func TestIndexesAreBounded(t *testing.T) {
	before := memoryShare
	memoryShare = 1 << 20
	defer func() { memoryShare = before }()
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		t.Fatal(err)
	}
	o := Options{Format: table.Persistent, ChunkBytes: chunk, Block: 512}
	o.OriginSize = info.Totalram * uint64(info.Unit) / memoryShare / slotSize * chunk
	for _, o.Described = range []bool{false, true} {
		o.Others = nil
		for range 2 {
			s, err := Open(memory(t, 1<<20), &o)
			if err != nil {
				t.Fatal(err)
			}
			o.Others = append(o.Others, s)
		}
		o.OriginSize /= 1024
		if _, err := Open(memory(t, 1<<20), &o); !errors.Is(err, unix.ENOMEM) {
			t.Fatalf("described %v: error %v", o.Described, err)
		}
		o.OriginSize *= 1024
		for _, s := range o.Others {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}
