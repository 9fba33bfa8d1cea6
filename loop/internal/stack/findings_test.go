package stack

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// A flush of the store fails, or a direct write with FUA, which includes one. If a first write has data that
// no commit has flushed, the store is invalid from then on, and so is each later flush. A write to the page cache
// includes no flush: a write with FUA is followed by one, which can fail because of other data.
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
	}{
		{"flush, nothing at risk", cached, saved, flush, []int32{eio}, false},
		{"flush during a first write", cached, begin, flush, []int32{eio}, true},
		{"the same without room for the data", cached, begin, flush, []int32{full}, true},
		{"FUA write to a chunk whose record is not saved", direct, unsaved, write(0, ublk.FlagFUA), []int32{eio}, true},
		{"FUA write to such a chunk on a full file system", direct, unsaved, write(0, ublk.FlagFUA), []int32{full}, false},
		{"FUA write to a saved chunk during a first write", direct, savedAndBegun, write(0, ublk.FlagFUA), []int32{eio}, true},
		{"write without FUA", direct, unsaved, write(0, 0), []int32{eio}, false},
		{"first write with FUA beside a record that is not saved", direct, unsaved, write(8, ublk.FlagFUA), []int32{eio}, true},
		{"first write with FUA alone", direct, func(*bed) {}, write(8, ublk.FlagFUA), []int32{eio}, false},
		{"FUA write to the page cache that fails", cached, unsaved, write(0, ublk.FlagFUA), []int32{eio}, false},
		{"first write with FUA to the page cache that fails", cached, unsaved, write(8, ublk.FlagFUA), []int32{full}, false},
		{"flush of a FUA write to a saved chunk", cached, saved, write(0, ublk.FlagFUA), []int32{written, eio}, false},
		{"the same during a first write", cached, savedAndBegun, write(0, ublk.FlagFUA), []int32{written, eio}, true},
		{"the same without room for the data of the first write", cached, savedAndBegun, write(0, ublk.FlagFUA), []int32{written, full}, true},
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
				want := int32(0)
				if tt.invalid {
					want = -int32(unix.EIO)
				}
				if r := b.Do(flush); r.Result != want || b.stack.stores[0].IsInvalid() != tt.invalid {
					t.Errorf("invalid %v; a later flush has the result %d, want %d", !tt.invalid, r.Result, want)
				}
			})
		})
	}
}
