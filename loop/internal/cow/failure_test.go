package cow

import (
	"errors"
	"os"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/loop/internal/mapping"
	"github.com/ublk-loop/ublk-loop/transfer/snapshot"
	"github.com/ublk-loop/ublk-loop/transfer/table"
)

// openSmall opens a new store of 64 chunks.
func openSmall(t *testing.T) (*Store, *os.File) {
	t.Helper()
	file := memory(t, 64*chunk)
	s, err := Open(file, &Options{Format: table.Persistent, ChunkBytes: chunk, OriginSize: 64 * chunk, Block: 512})
	if err != nil {
		t.Fatal(err)
	}
	return s, file
}

// firstWrite begins a first write, and ends it with end.
func firstWrite(t *testing.T, s *Store, old uint64, end bool) snapshot.Record {
	t.Helper()
	if !s.Index.Claim(old) {
		t.Fatalf("chunk %d is claimed", old)
	}
	replacement, errno := s.Allocate(old)
	if errno != 0 {
		t.Fatalf("chunk %d: %d", old, errno)
	}
	r := snapshot.Record{Old: old, New: replacement}
	if end && !s.Add(r) {
		t.Fatal("no room for a record")
	}
	return r
}

// writeTo makes the store write to a file, or to one that cannot be written, but flushed.
func (s *Store) writeTo(t *testing.T, file *os.File, writable bool) {
	t.Helper()
	if !writable {
		file = openUnwritable(t, file)
	}
	s.logMu.Lock()
	defer s.logMu.Unlock()
	s.file = file
}

// recordsIn returns the number of records that a file has.
func recordsIn(t *testing.T, s *Store, file *os.File) uint64 {
	t.Helper()
	state, err := snapshot.Scan(file, s.Layout, 64*chunk, func(snapshot.Record) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	return state.Records(s.Layout)
}

// A flush that fails makes a store invalid if a first write goes on, or has no record on the medium
// yet. Otherwise the store stays usable.
func TestFlushFailed(t *testing.T) {
	for _, tt := range []struct {
		name        string
		begun, done int
		save        bool
		want        uint32
	}{
		{"nothing", 0, 0, false, mapping.Usable},
		{"saved records", 0, 3, true, mapping.Usable},
		{"a record that is not saved", 0, 1, false, mapping.Invalid},
		{"a first write", 1, 0, false, mapping.Invalid},
		{"a first write after saved records", 1, 3, true, mapping.Invalid},
	} {
		s, _ := openSmall(t)
		for i := range tt.done {
			firstWrite(t, s, uint64(i), true)
		}
		if tt.save {
			if err := s.Save(); err != nil {
				t.Fatal(err)
			}
		}
		for i := range tt.begun {
			firstWrite(t, s, uint64(10+i), false)
		}
		s.FlushFailed()
		if got := s.state.Load(); got != tt.want {
			t.Errorf("%s: state %d, want %d", tt.name, got, tt.want)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// If records cannot be written, the flush of this write can have failed. The data of these records
// was flushed before, and that of others was not.
func TestRecordsFail(t *testing.T) {
	s, file := openSmall(t)
	firstWrite(t, s, 0, true)
	s.writeTo(t, file, false)
	if err := s.Save(); !errors.Is(err, unix.EBADF) || s.IsInvalid() {
		t.Errorf("error %v, invalid %v", err, s.IsInvalid())
	}
	s.writeTo(t, file, true)
	if err := s.Save(); err != nil || recordsIn(t, s, file) != 1 {
		t.Errorf("error %v, %d records", err, recordsIn(t, s, file))
	}
	firstWrite(t, s, 1, true)
	firstWrite(t, s, 2, false)
	s.writeTo(t, file, false)
	if err := s.Save(); err == nil || !s.IsInvalid() {
		t.Errorf("error %v, invalid %v", err, s.IsInvalid())
	}
	s.writeTo(t, file, true)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// If records cannot be written, that is reported once, before the store says that it saves no longer.
func TestLostIsReported(t *testing.T) {
	s, file := openSmall(t)
	reports := 0
	s.onLost = func(returned bool) {
		reports++
		if returned || !s.IsSaving() {
			t.Errorf("returned %v, saving %v", returned, s.IsSaving())
		}
	}
	expect := func(what string, err error, want int) {
		t.Helper()
		if (err != nil) != (want > 0) || reports != want || s.IsSaving() {
			t.Errorf("%s: error %v, %d reports, want %d, saving %v", what, err, reports, want, s.IsSaving())
		}
		reports = 0
	}
	firstWrite(t, s, 0, true)
	expect("save", s.Save(), 0)
	firstWrite(t, s, 1, true)
	s.writeTo(t, file, false)
	expect("save that fails", s.Save(), 1)
	s.writeTo(t, file, true)
	expect("later save", s.Save(), 0)
	run, err := s.BeginRun(make([]snapshot.Record, 1))
	if err != nil {
		t.Fatal(err)
	}
	s.file = openUnwritable(t, file)
	expect("merge that fails", s.EndRun(run, nil), 1)
	s.writeTo(t, file, true)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// A file system without room for records has lost no data: the store stays usable, and no flush of the device fails.
func TestNoRoomForRecords(t *testing.T) {
	s, file := openSmall(t)
	firstWrite(t, s, 0, true)
	full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = full.Close() }()
	s.logMu.Lock()
	s.file = full
	err = s.writeRecords(snapshot.Write{Offset: chunk, Data: make([]byte, 512)}, 0)
	s.file = file
	lost := s.lost
	s.logMu.Unlock()
	if !errors.Is(err, unix.ENOSPC) || s.IsInvalid() || lost {
		t.Errorf("error %v, invalid %v, or data is lost", err, s.IsInvalid())
	}
	if err := s.Save(); err != nil || recordsIn(t, s, file) != 1 {
		t.Errorf("error %v, %d records", err, recordsIn(t, s, file))
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// The records of an invalid store are not saved. Its header says that it is invalid, and who saves it gets no error.
func TestSaveOfInvalidStore(t *testing.T) {
	s, file := openSmall(t)
	firstWrite(t, s, 0, true)
	s.state.Store(mapping.Invalid) // as invalidate, but the goroutine does not see it
	if err := s.Save(); err != nil || s.Unsaved() {
		t.Errorf("error %v, unsaved %v", err, s.Unsaved())
	}
	if h, err := snapshot.ReadHeader(file); err != nil || h.Valid {
		t.Errorf("%+v, error %v", h, err)
	}
	if n := recordsIn(t, s, file); n != 0 {
		t.Errorf("%d records", n)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// An eager store whose records cannot be written is behind until they are. Another store never is.
func TestBehind(t *testing.T) {
	for _, eager := range []bool{false, true} {
		s, file := openSmall(t)
		s.Eager = eager
		firstWrite(t, s, 0, true)
		s.writeTo(t, file, false)
		if err := s.Save(); err == nil || s.IsBehind() != eager {
			t.Errorf("eager %v: behind %v, error %v", eager, s.IsBehind(), err)
		}
		s.writeTo(t, file, true)
		if err := s.Save(); err != nil || s.IsBehind() {
			t.Errorf("eager %v: behind %v after a commit, error %v", eager, s.IsBehind(), err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// The header of a store says that it is invalid, also if the store is closed at once.
func TestCloseMarksInvalidStore(t *testing.T) {
	s, file := openSmall(t)
	s.state.Store(mapping.Invalid) // as invalidate, but the goroutine does not see it
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if h, err := snapshot.ReadHeader(file); err != nil || h.Valid {
		t.Errorf("%+v, error %v", h, err)
	}
}

// If the removal of records fails, the medium may lack them. The next flush writes them again, because
// writes to their chunks go on.
func TestRemovalFails(t *testing.T) {
	s, file := openSmall(t)
	s.Eager = true
	for i := range uint64(10) {
		firstWrite(t, s, i, true)
	}
	if err := s.Save(); err != nil {
		t.Fatal(err)
	}
	run, err := s.BeginRun(make([]snapshot.Record, 4))
	if err != nil {
		t.Fatal(err)
	}
	s.file = openUnwritable(t, file)
	if err := s.EndRun(run, nil); !errors.Is(err, unix.EBADF) {
		t.Errorf("error %v", err)
	}
	s.writeTo(t, file, true)
	if _, err := file.WriteAt(make([]byte, 7*16), chunk+3*16); err != nil { // the removal has reached the medium
		t.Fatal(err)
	}
	if !s.Unsaved() || !s.IsBehind() || s.Left() != 10 {
		t.Errorf("unsaved %v, behind %v, %d records", s.Unsaved(), s.IsBehind(), s.Left())
	}
	if err := s.Save(); err != nil || s.Unsaved() || s.IsBehind() {
		t.Errorf("error %v, unsaved %v", err, s.Unsaved())
	}
	if n := recordsIn(t, s, file); n != 10 {
		t.Errorf("%d records, want 10", n)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// A chunk whose data was merged is not given out while a read of it can be going on. Recycle, which
// is called when the device keeps its requests, makes it free, and the store uses less space.
func TestRecycle(t *testing.T) {
	s, _ := openSmall(t)
	for i := range uint64(20) {
		firstWrite(t, s, i, true)
	}
	if err := s.Save(); err != nil {
		t.Fatal(err)
	}
	used, free := s.Usage().Allocated, s.Free()
	run, err := s.BeginRun(make([]snapshot.Record, 5))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.EndRun(run, nil); err != nil {
		t.Fatal(err)
	}
	later := firstWrite(t, s, 40, true)
	for _, e := range run {
		if e.New == later.New {
			t.Errorf("chunk %d is given out before Recycle", e.New)
		}
	}
	s.Recycle()
	if got := s.Free(); got != free+5-1 {
		t.Errorf("%d chunks are free, want %d", got, free+5-1)
	}
	if err := s.Save(); err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{1, 3} { // the later one, and some before
		run, err := s.BeginRun(make([]snapshot.Record, n))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.EndRun(run, nil); err != nil {
			t.Fatal(err)
		}
		s.Recycle()
	}
	if got := s.Usage().Allocated; got != used-8*8 || len(s.given) != 0 {
		t.Errorf("%d sectors are used, want %d; %d chunks are listed", got, used-8*8, len(s.given))
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func openUnwritable(t *testing.T, file *os.File) *os.File {
	t.Helper()
	f, err := os.Open("/proc/self/fd/" + strconv.Itoa(int(file.Fd())))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}
