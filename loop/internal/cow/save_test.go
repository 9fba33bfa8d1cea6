package cow

import (
	"bytes"
	"errors"
	"io"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/transfer/snapshot"
	"github.com/ublk-loop/ublk-loop/transfer/table"
)

// The stores of these tests have chunks of 4 KiB, with perArea records in an area.
const (
	chunk   = 4096
	perArea = chunk / 16
)

// memory returns a file in memory.
func memory(t *testing.T, size int64) *os.File {
	t.Helper()
	fd, err := unix.MemfdCreate("store", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "store")
	t.Cleanup(func() { _ = f.Close() })
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return f
}

// If some records of a group are saved and the rest is not, the next group has only the rest.
// Otherwise the list would have records twice, and nobody could load the store.
func TestPartOfAGroupIsSaved(t *testing.T) {
	layout, err := snapshot.NewLayout(chunk)
	if err != nil {
		t.Fatal(err)
	}
	const records = 2 * perArea
	small := memory(t, layout.Offset(layout.Area(2)))
	if _, err := unix.FcntlInt(small.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_GROW); err != nil {
		t.Fatal(err)
	}
	s, err := Open(small, &Options{Format: table.Persistent, ChunkBytes: chunk, OriginSize: records * chunk, Block: 512})
	if err != nil {
		t.Fatal(err)
	}
	s.logMu.Lock() // else the goroutine saves some of them alone
	for i := range uint64(records) {
		if !s.Add(snapshot.Record{Old: records - 1 - i, New: layout.DataChunk(i)}) {
			t.Fatal("no room for a record")
		}
	}
	s.logMu.Unlock()
	if err := s.Save(); !errors.Is(err, unix.EPERM) {
		t.Fatalf("save without room for the third area: %v", err)
	}
	s.logMu.Lock() // the goroutine can try again, without success
	if n := s.unsavedCount.Load(); n != perArea || len(s.unsaved) != perArea {
		t.Errorf("%d and %d records are unsaved, want %d", n, len(s.unsaved), perArea)
	}
	s.logMu.Unlock()
	large := memory(t, layout.Offset(layout.Area(3)))
	if _, err := io.Copy(io.NewOffsetWriter(large, 0), io.NewSectionReader(small, 0, layout.Offset(layout.Area(2)))); err != nil {
		t.Fatal(err)
	}
	s.logMu.Lock()
	s.file = large
	s.logMu.Unlock()
	if err := errors.Join(s.Save(), s.Close()); err != nil {
		t.Fatal(err)
	}
	state, err := snapshot.Load(large, layout, uint64(layout.Offset(layout.Area(3))), snapshot.NewIndex(make([]uint32, records)))
	if err != nil || state.Records(layout) != records {
		t.Errorf("%d records: %v", state.Records(layout), err)
	}
}

// A store can have any bytes behind its first area. When that is full, the list of records ends there.
func TestNextAreaIsZeroed(t *testing.T) {
	layout, err := snapshot.NewLayout(chunk)
	if err != nil {
		t.Fatal(err)
	}
	file := memory(t, layout.Offset(layout.Area(2)))
	if err := snapshot.Format(file, layout); err != nil {
		t.Fatal(err)
	}
	old := bytes.Repeat([]byte{1, 0, 0, 0, 0, 0, 0, 0}, chunk/8)
	if _, err := file.WriteAt(old, layout.Offset(layout.Area(1))); err != nil {
		t.Fatal(err)
	}
	s, err := Open(file, &Options{Format: table.Persistent, ChunkBytes: chunk, OriginSize: perArea * chunk, Block: 512})
	if err != nil {
		t.Fatal(err)
	}
	for i := range uint64(perArea) {
		firstWrite(t, s, i, true)
	}
	if err := errors.Join(s.Save(), s.Close()); err != nil {
		t.Fatal(err)
	}
	state, err := snapshot.Load(file, layout, uint64(layout.Offset(layout.Area(2))), snapshot.NewIndex(make([]uint32, perArea)))
	if err != nil || state.Records(layout) != perArea {
		t.Errorf("%d records: %v", state.Records(layout), err)
	}
}

// Operations that were reserved allocate no memory when all of them wait for a chunk, for a commit,
// or give their chunks back.
func TestReserve(t *testing.T) {
	const operations = 300
	file := memory(t, 4<<20)
	layout, err := snapshot.NewLayout(chunk)
	if err == nil {
		err = snapshot.Format(file, layout)
	}
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(file, &Options{Format: table.Persistent, ChunkBytes: chunk, OriginSize: 4 << 20, Block: 512})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	s.Reserve(operations / 3)
	s.Reserve(operations - operations/3)
	s.mu.Lock()
	defer s.mu.Unlock()
	for range 2 { // both lists of commits
		before := [3]int{cap(s.given), cap(s.waiting), cap(s.commits)}
		for i := range operations {
			s.given = append(s.given, uint64(i))
			s.waiting = append(s.waiting, waiter{chunk: uint64(i)})
			s.commits = append(s.commits, committer{})
		}
		if after := [3]int{cap(s.given), cap(s.waiting), cap(s.commits)}; after != before {
			t.Errorf("the lists have room for %v, and had room for %v", after, before)
		}
		s.given, s.waiting, s.commits = s.given[:0], s.waiting[:0], s.commits[:0]
		s.asking, s.commits = s.commits, s.asking
	}
}
