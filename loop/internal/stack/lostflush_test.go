package stack

import (
	"bytes"
	"errors"
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/loop/internal/backing"
	"github.com/ublk-loop/ublk-loop/loop/internal/cow"
	"github.com/ublk-loop/ublk-loop/transfer/snapshot"
	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// The kernel reports lost data to one flush of an open file. If records are saved while a flush or a write with FUA syncs the file,
// and that meets the error, the request fails as well.
func TestFlushBesideAFailedSave(t *testing.T) {
	for _, tt := range []struct {
		name string
		sync int // number of the operation that is the sync
		req  ublktest.Request
	}{
		{"flush", 1, ublktest.Request{Op: ublk.OpFlush}},
		{"write with FUA", 2, ublktest.Request{Op: ublk.OpWrite, Flags: ublk.FlagFUA, Sectors: 8, Data: make([]byte, 4096)}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			atSync := func(do func()) ublktest.Request {
				req, n := tt.req, 0
				req.Ended = func(int32) {
					if n++; n == tt.sync {
						do()
					}
				}
				return req
			}
			serve(t, snapshotDir(t), "0 512 snapshot $A $B P 8", Options{}, func(b *bed) {
				t, store := b.t, b.stack.stores[0]
				b.must(ublktest.Request{Op: ublk.OpWrite, Sectors: 8, Data: bytes.Repeat([]byte{1}, 4096)})
				b.must(ublktest.Request{Op: ublk.OpFlush})

				// The save ends before the sync.
				r := b.Do(atSync(func() {
					addRecord(t, store, 5)
					undo := makeUnwritable(t, b.stack.Backings[1])
					defer undo()
					if err := store.Save(); !errors.Is(err, unix.EBADF) {
						t.Errorf("save: error %v", err)
					}
				}))
				if r.Result >= 0 {
					t.Errorf("the save fails during the sync: result %d", r.Result)
				}
				b.Do(ublktest.Request{Op: ublk.OpFlush}) // reports the loss, saves the record

				// The save is going on at the end of the sync.
				run, err := store.BeginRun(make([]snapshot.Record, 1))
				if err != nil {
					t.Fatal(err)
				}
				begun, saved := make(chan struct{}), make(chan error, 1)
				wait := b.Begin(atSync(func() {
					addRecord(t, store, 6)
					go func() { saved <- store.Save() }() // received below
					for !store.IsSaving() {
						runtime.Gosched()
					}
					close(begun)
				}))
				<-begun
				undo := makeUnwritable(t, b.stack.Backings[1])
				if err := store.EndRun(run, errors.New("not copied")); err == nil {
					t.Error("the merge succeeds")
				}
				if err := <-saved; !errors.Is(err, unix.EBADF) {
					t.Errorf("save: error %v", err)
				}
				if r := wait(); r.Result >= 0 {
					t.Errorf("the save fails after the sync: result %d", r.Result)
				}
				undo()
			})
		})
	}
}

// addRecord adds the record of a first write.
func addRecord(t *testing.T, store *cow.Store, old uint64) {
	replacement, errno := uint64(0), int32(-1)
	if store.Index.Claim(old) {
		replacement, errno = store.Allocate(old)
	}
	if errno != 0 || !store.Add(snapshot.Record{Old: old, New: replacement}) {
		t.Errorf("chunk %d: errno %d", old, errno)
	}
}

// makeUnwritable makes writes to the descriptor of a file fail, until undo is called. The ring has the file itself, and goes on.
func makeUnwritable(t *testing.T, b *backing.Backing) (undo func()) {
	t.Helper()
	was, err := unix.FcntlInt(uintptr(b.FD), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	reads, err := os.Open(b.Path)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Dup3(int(reads.Fd()), b.FD, unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := errors.Join(unix.Dup3(was, b.FD, unix.O_CLOEXEC), unix.Close(was), reads.Close()); err != nil {
			t.Error(err)
		}
	}
}
