package target

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/loop/internal/backing"
	"github.com/ublk-loop/ublk-loop/ring"
	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// wantSync checks that an operation is an fdatasync of the file.
func wantSync(t *testing.T, e ring.SQE) {
	t.Helper()
	if e.Opcode != ring.IORING_OP_FSYNC || e.OpFlags != ring.IORING_FSYNC_DATASYNC ||
		e.Flags&ring.IOSQE_FIXED_FILE == 0 || e.Off != 0 || e.Len != 0 {
		t.Errorf("asked for %+v, want an fdatasync of all of the file", e)
	}
}

// A flush is one fdatasync, and has its result. That is also true for a read-only device.
func TestFlush(t *testing.T) {
	for _, depth := range []int{alone, together} {
		for _, readOnly := range []bool{false, true} {
			d, _ := serveFile(t, depth, func(b *backing.Backing) { b.ReadOnly = readOnly })
			r := d.Do(ublktest.Request{Op: ublk.OpFlush})
			wantResult(t, r, 0, 1)
			wantSync(t, r.Entries[0])
			for i, errno := range append(errnos, unix.EAGAIN) {
				wantResult(t, d.Do(ublktest.Request{Op: ublk.OpFlush, Answers: answers(failed(errno))}), failed(errno), 1)
				if n := d.Stats().Ops[ublk.OpFlush].Errors; n != uint64(i+1) {
					t.Errorf("%d errors are counted, want %d", n, i+1)
				}
			}
		}
	}
}

func TestFlushInterrupted(t *testing.T) {
	d, _ := serveFile(t, together, nil)
	r := d.Do(ublktest.Request{Op: ublk.OpFlush, Answers: answers(failed(unix.EINTR), failed(unix.EINTR))})
	wantResult(t, r, 0, 3)
	for _, e := range r.Entries {
		wantSync(t, e)
	}
	if n := d.Stats().Retries; n != 2 {
		t.Errorf("%d retries are counted, want 2", n)
	}
	r = d.Do(ublktest.Request{Op: ublk.OpFlush, Answers: answers(failed(unix.EINTR), failed(unix.EIO))})
	wantResult(t, r, failed(unix.EIO), 2)
}

// An error of the kernel's own fdatasync becomes the result of the flush.
func TestFlushRealErrno(t *testing.T) {
	_, writer := pipe(t)
	d := ublktest.NewDisk(t, alone, &Target{Backing: &backing.Backing{FD: writer}})
	wantResult(t, d.Do(ublktest.Request{Op: ublk.OpFlush}), failed(unix.EINVAL), 1)
}
