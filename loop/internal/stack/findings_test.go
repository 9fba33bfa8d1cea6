package stack

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/loop/internal/backing"
	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// A flush of the store fails, or a direct write with FUA, which includes one. If a first write has data that
// no commit has flushed, the store is invalid from then on, and so is each later flush. A write to the page cache
// includes no flush: a write with FUA is followed by one, which can fail because of other data. Unless the request is
// a flush, the next flush fails in any case.
func TestFlushOfStoreFails(t *testing.T) {
	flush := ublktest.Request{Op: ublk.OpFlush}
	write := func(sector uint64, flags ublk.Flags) ublktest.Request {
		return ublktest.Request{Op: ublk.OpWrite, StartSector: sector, Sectors: 8, Data: make([]byte, 4096), Flags: flags}
	}
	begin := func(b *bed) {
		store := b.stack.stores[0]
		if _, errno := store.Allocate(5); !store.Index.Claim(5) || errno != 0 {
			b.t.Fatal("no chunk")
		}
	}
	unsaved := func(b *bed) { b.must(write(0, 0)) }
	saved := func(b *bed) { b.must(write(0, 0)); b.must(flush) }
	savedAndBegun := func(b *bed) { saved(b); begin(b) }
	const written, eio, full = 4096, -int32(unix.EIO), -int32(unix.ENOSPC)
	const cached, direct = false, true
	for _, tt := range []struct {
		name    string
		direct  bool
		before  func(b *bed)
		req     ublktest.Request
		answers []int32 // of the operations of the request; the last one is an error, and its result
		invalid bool
		once    int32 // the result of the next flush, if the store is valid
	}{
		{"flush, nothing at risk", cached, saved, flush, []int32{eio}, false, 0},
		{"flush during a first write", cached, begin, flush, []int32{eio}, true, 0},
		{"the same without room for the data", cached, begin, flush, []int32{full}, true, 0},
		{"FUA write to a chunk whose record is not saved", direct, unsaved, write(0, ublk.FlagFUA), []int32{eio}, true, 0},
		{"FUA write to such a chunk on a full file system", direct, unsaved, write(0, ublk.FlagFUA), []int32{full}, false, 0},
		{"FUA write to a saved chunk during a first write", direct, savedAndBegun, write(0, ublk.FlagFUA), []int32{eio}, true, 0},
		{"write without FUA", direct, unsaved, write(0, 0), []int32{eio}, false, 0},
		{"first write with FUA beside a record that is not saved", direct, unsaved, write(8, ublk.FlagFUA), []int32{eio}, true, 0},
		{"first write with FUA alone", direct, func(*bed) {}, write(8, ublk.FlagFUA), []int32{eio}, false, eio},
		{"FUA write to the page cache that fails", cached, unsaved, write(0, ublk.FlagFUA), []int32{eio}, false, 0},
		{"first write with FUA to the page cache that fails", cached, unsaved, write(8, ublk.FlagFUA), []int32{full}, false, 0},
		{"flush of a FUA write to a saved chunk", cached, saved, write(0, ublk.FlagFUA), []int32{written, eio}, false, eio},
		{"the same during a first write", cached, savedAndBegun, write(0, ublk.FlagFUA), []int32{written, eio}, true, 0},
		{"the same without room for the data of the first write", cached, savedAndBegun, write(0, ublk.FlagFUA), []int32{written, full}, true, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			change := func(s *Stack) {
				for _, b := range s.Backings {
					b.Direct = tt.direct
				}
			}
			serveAs(t, snapshotDir(t), "0 512 snapshot $A $B P 8", Options{}, change, func(b *bed) {
				tt.before(b)
				req := tt.req
				req.Answers = tt.answers
				if r := b.Do(req); r.Result != tt.answers[len(tt.answers)-1] {
					t.Errorf("result %d", r.Result)
				}
				wants := [2]int32{tt.once, 0}
				if tt.invalid {
					wants = [2]int32{eio, eio}
				}
				for i, want := range wants {
					if r := b.Do(flush); r.Result != want || b.stack.stores[0].IsInvalid() != tt.invalid {
						t.Errorf("later flush %d: invalid %v, result %d, want %v and %d", i, b.stack.stores[0].IsInvalid(), r.Result, tt.invalid, want)
					}
				}
			})
		})
	}
}

// Records of a store cannot be written, and the flush of this write can have lost other data. If a write with FUA is the request
// that fails, the next flush fails too, once.
func TestCommitOfFUAFails(t *testing.T) {
	const eio = -int32(unix.EIO)
	flush := ublktest.Request{Op: ublk.OpFlush}
	write := ublktest.Request{Op: ublk.OpWrite, Sectors: 8, Data: make([]byte, 4096)}
	fua := write
	fua.Flags = ublk.FlagFUA
	for _, tt := range []struct {
		fails ublktest.Request
		next  int32
	}{{fua, eio}, {flush, 0}} {
		dir := snapshotDir(t)
		serve(t, dir, "0 512 snapshot $A $B P 8", Options{}, func(b *bed) {
			b.must(write)
			undo := unwritable(t, b.stack.Backings[b.stack.backingOf[1]].FD)
			if r := b.Do(tt.fails); r.Result != -int32(unix.EBADF) {
				t.Errorf("%v that cannot write records: result %d", tt.fails.Op, r.Result)
			}
			undo()
			for i, want := range []int32{tt.next, 0} {
				if r := b.Do(flush); r.Result != want {
					t.Errorf("flush %d after a failed %v: result %d, want %d", i, tt.fails.Op, r.Result, want)
				}
			}
		})
	}
}

// unwritable makes a descriptor refuse writes until undo is called. A ring that has the file does not notice.
func unwritable(t *testing.T, fd int) (undo func()) {
	t.Helper()
	was, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	readOnly := openReadOnly(t, fmt.Sprintf("/proc/self/fd/%d", fd))
	if err := unix.Dup3(int(readOnly.Fd()), fd, unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := errors.Join(unix.Dup3(was, fd, unix.O_CLOEXEC), unix.Close(was)); err != nil {
			t.Fatal(err)
		}
	}
}

// After a failed request with FUA, whose error can be that of other data, one flush of the device fails, in whichever
// queue. The same holds for each part.
func TestFlushAfterFailedFUA(t *testing.T) {
	const eio, full = -int32(unix.EIO), -int32(unix.ENOSPC)
	request := func(op ublk.Op, flags ublk.Flags, sectors uint32, answers ...int32) ublktest.Request {
		return ublktest.Request{Op: op, Flags: flags, Sectors: sectors, Data: make([]byte, sectors*512), Answers: answers}
	}
	for _, tt := range []struct {
		name   string
		change func(b *backing.Backing)
		req    ublktest.Request
		result int32
		next   int32 // flush
	}{
		{"write of one part", nil, request(ublk.OpWrite, ublk.FlagFUA, 4, full), full, full},
		{"write of two parts", nil, request(ublk.OpWrite, ublk.FlagFUA, 8, 2048, eio), eio, eio},
		{"write without FUA", nil, request(ublk.OpWrite, 0, 8, 2048, eio), eio, 0},
		{"discard, sync of the second file", nil, request(ublk.OpDiscard, ublk.FlagFUA, 8, 0, 0, 0, eio), eio, eio},
		{"write-zeroes, punch", nil, request(ublk.OpWriteZeroes, ublk.FlagFUA, 8, 0, eio), eio, 0},
		{"write to disks", func(b *backing.Backing) { b.Direct, b.IsDisk = true, true }, request(ublk.OpWrite, ublk.FlagFUA, 4, eio), eio, 0},
		{"direct write", func(b *backing.Backing) { b.Direct = true }, request(ublk.OpWrite, ublk.FlagFUA, 4, eio), eio, eio},
		{"direct write, file system full", func(b *backing.Backing) { b.Direct = true }, request(ublk.OpWrite, ublk.FlagFUA, 4, full), full, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			makeFiles(t, dir)
			change := func(s *Stack) {
				for _, b := range s.Backings {
					if tt.change != nil {
						tt.change(b)
					}
				}
			}
			serveAs(t, dir, "0 64 striped 2 4 $A 200 $B 100", Options{}, change, func(b *bed) {
				other := b.queue()
				if r := b.Do(tt.req); r.Result != tt.result {
					t.Errorf("result %d", r.Result)
				}
				for i, want := range []int32{tt.next, 0} {
					if r := other.Do(ublktest.Request{Op: ublk.OpFlush}); r.Result != want {
						t.Errorf("flush %d: result %d, want %d", i, r.Result, want)
					}
				}
				if r := b.Do(request(ublk.OpWrite, ublk.FlagFUA, 8)); r.Result != 4096 {
					t.Errorf("a later write has the result %d", r.Result)
				}
			})
		})
	}
}

// While a flush or a write with FUA goes on, another request gets the error of lost data.
func TestBesideFailure(t *testing.T) {
	const eio = -int32(unix.EIO)
	for _, beside := range []ublktest.Request{
		{Op: ublk.OpFlush}, {Op: ublk.OpWrite, Flags: ublk.FlagFUA, Sectors: 8, Data: make([]byte, 4096)}, {Op: ublk.OpDiscard, Flags: ublk.FlagFUA, Sectors: 8},
	} {
		b := newBed(t, "0 64 striped 2 4 $A 200 $B 100")
		other := b.queue()
		ended := false
		beside.Ended = func(int32) {
			if !ended { // another part is in flight, or follows
				ended = true
				if r := other.Do(ublktest.Request{Op: ublk.OpFlush, Answers: []int32{eio}}); r.Result != eio {
					t.Errorf("result %d", r.Result)
				}
			}
		}
		if r := b.Do(beside); r.Result != eio {
			t.Errorf("%v beside a failed flush: result %d", beside.Op, r.Result)
		}
		if r := b.Do(ublktest.Request{Op: ublk.OpFlush}); r.Result != 0 {
			t.Errorf("flush after a failed one: result %d", r.Result)
		}
	}
}

// queue returns a second queue of the device.
func (b *bed) queue() *ublktest.Disk {
	parts := b.stack.ExtraParts(snapshotDepth)
	return ublktest.NewDiskWith(b.t, ublk.Options{Depth: snapshotDepth, Files: b.stack.Files(), ExtraParts: parts}, &Target{Stack: b.stack, ExtraParts: parts})
}

// Only a stack that checks data has room for reports of wrong blocks.
func TestMemoryOfReports(t *testing.T) {
	s := newBed(t, "0 64 linear $A 0").stack
	if n := cap(s.CorruptionReports()); n != 0 {
		t.Errorf("a stack without verity has room for %d reports", n)
	}
	s = newVerityBed(t, small, "").stack
	if n := cap(s.CorruptionReports()); n != maxReports {
		t.Errorf("a stack with verity has room for %d reports, want %d", n, maxReports)
	}
}

// A process that serves a stack for another one can be under the control of an attacker. Its reports of wrong blocks do not
// keep the goroutine waiting that receives them, whether the stack has verity or not.
func TestFalseReportsOfWrongBlocks(t *testing.T) {
	plain, checked := newBed(t, "0 64 linear $A 0").stack, newVerityBed(t, small, "").stack
	for s, want := range map[*Stack]uint64{plain: 0, checked: 2 * maxReports} {
		reported := make(chan struct{})
		go func() {
			defer close(reported)
			for range 2 * maxReports {
				s.ReportCorruption(Corruption{})
			}
		}()
		select {
		case <-reported:
		case <-time.After(10 * time.Second):
			t.Fatalf("a report waits, after %d", s.Corruptions())
		}
		if n := s.Corruptions(); n != want {
			t.Errorf("%d wrong blocks, want %d", n, want)
		}
	}
}
