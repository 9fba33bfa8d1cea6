package stack

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// A flush of the store fails, or a write with FUA, which includes one. If a first write has data that
// no commit has flushed, the store is invalid from then on, and so is each later flush.
func TestFlushOfStoreFails(t *testing.T) {
	flush := ublktest.Request{Op: ublk.OpFlush}
	write := func(sector uint64, flags ublk.Flags) ublktest.Request {
		return ublktest.Request{Op: ublk.OpWrite, StartSector: sector, Sectors: 8, Data: make([]byte, 4096), Flags: flags}
	}
	for _, tt := range []struct {
		name    string
		before  func(b *bed)
		req     ublktest.Request
		errno   unix.Errno
		invalid bool
	}{
		{"flush, nothing at risk", func(b *bed) { b.must(write(0, 0)); b.must(flush) }, flush, unix.EIO, false},
		{"flush during a first write", func(b *bed) {
			store := b.stack.stores[0]
			if _, errno := store.Allocate(5); !store.Index.Claim(5) || errno != 0 {
				b.t.Fatal("no chunk")
			}
		}, flush, unix.EIO, true},
		{"the same without room for the data", func(b *bed) {
			store := b.stack.stores[0]
			if _, errno := store.Allocate(5); !store.Index.Claim(5) || errno != 0 {
				b.t.Fatal("no chunk")
			}
		}, flush, unix.ENOSPC, true},
		{"FUA write to a chunk whose record is not saved", func(b *bed) { b.must(write(0, 0)) }, write(0, ublk.FlagFUA), unix.EIO, true},
		{"FUA write to such a chunk on a full file system", func(b *bed) { b.must(write(0, 0)) }, write(0, ublk.FlagFUA), unix.ENOSPC, false},
		{"FUA write to a saved chunk during a first write", func(b *bed) {
			b.must(write(0, 0))
			b.must(flush)
			store := b.stack.stores[0]
			if _, errno := store.Allocate(5); !store.Index.Claim(5) || errno != 0 {
				b.t.Fatal("no chunk")
			}
		}, write(0, ublk.FlagFUA), unix.EIO, true},
		{"write without FUA", func(b *bed) { b.must(write(0, 0)) }, write(0, 0), unix.EIO, false},
		{"first write with FUA beside a record that is not saved", func(b *bed) { b.must(write(0, 0)) }, write(8, ublk.FlagFUA), unix.EIO, true},
		{"first write with FUA alone", func(*bed) {}, write(8, ublk.FlagFUA), unix.EIO, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			serve(t, snapshotDir(t), "0 512 snapshot $A $B P 8", Options{}, func(b *bed) {
				tt.before(b)
				req := tt.req
				req.Answers = []int32{-int32(tt.errno)}
				if r := b.Do(req); r.Result != -int32(tt.errno) {
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
