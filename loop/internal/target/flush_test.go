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

// failedFUA are requests with FUA that fail, and the result of the next flush.
var failedFUA = []struct {
	name   string
	isDisk bool
	direct bool
	req    ublktest.Request
	result int32
	next   int32
}{
	{"write", false, false, fua(ublk.OpWrite, 0, failed(unix.ENOSPC)), failed(unix.ENOSPC), failed(unix.ENOSPC)},
	{"rest of a write", false, false, fua(ublk.OpWrite, 0, 512, failed(unix.EIO)), failed(unix.EIO), failed(unix.EIO)},
	{"write to the page cache of a disk", true, false, fua(ublk.OpWrite, 0, failed(unix.EIO)), failed(unix.EIO), failed(unix.EIO)},
	{"direct write", false, true, fua(ublk.OpWrite, 0, failed(unix.EIO)), failed(unix.EIO), failed(unix.EIO)},
	{"direct write, file system full", false, true, fua(ublk.OpWrite, 0, failed(unix.EDQUOT)), failed(unix.EDQUOT), 0},
	{"direct write to a disk", true, true, fua(ublk.OpWrite, 0, failed(unix.EIO)), failed(unix.EIO), 0},
	{"sync of a discard", false, false, fua(ublk.OpDiscard, 0, 0, failed(unix.EIO)), failed(unix.EIO), failed(unix.EIO)},
	{"discard", false, false, fua(ublk.OpDiscard, 0, failed(unix.EIO)), failed(unix.EIO), 0},
	{"sync of a write-zeroes", false, true, fua(ublk.OpWriteZeroes, ublk.FlagNoUnmap, 0, failed(unix.ENOSPC)), failed(unix.ENOSPC), failed(unix.ENOSPC)},
	{"write without FUA", false, false, request(ublk.OpWrite, failed(unix.EIO)), failed(unix.EIO), 0},
	{"flush", false, false, ublktest.Request{Op: ublk.OpFlush, Answers: answers(failed(unix.EIO))}, failed(unix.EIO), 0},
}

func fua(op ublk.Op, flags ublk.Flags, results ...int32) ublktest.Request {
	req := request(op, results...)
	req.Flags = flags | ublk.FlagFUA
	return req
}

// After a failed request with FUA, whose error can be that of other data, one flush of the device fails, in whichever
// queue. A later request with FUA does not.
func TestFlushAfterFailedFUA(t *testing.T) {
	for _, tt := range failedFUA {
		t.Run(tt.name, func(t *testing.T) {
			for _, depth := range []int{alone, together} {
				f := memoryFile(t, make([]byte, testAt+testBytes))
				target := &Target{Backing: &backing.Backing{FD: int(f.Fd()), Offset: testOffset, IsDisk: tt.isDisk, Direct: tt.direct, SectorSize: 512}}
				d, other := ublktest.NewDisk(t, depth, target), ublktest.NewDisk(t, depth, target)
				if r := d.Do(tt.req); r.Result != tt.result {
					t.Errorf("result %d, want %d", r.Result, tt.result)
				}
				wantResult(t, d.Do(fua(ublk.OpWrite, 0)), testBytes, 1)
				wantResult(t, other.Do(ublktest.Request{Op: ublk.OpFlush}), tt.next, 1)
				wantResult(t, other.Do(ublktest.Request{Op: ublk.OpFlush}), 0, 1)
				wantResult(t, d.Do(ublktest.Request{Op: ublk.OpFlush}), 0, 1)
			}
		})
	}
}

// While a flush or a request with FUA goes on, a request of another queue gets the error of lost data. A write without FUA
// promises nothing.
func TestBesideFailure(t *testing.T) {
	for _, tt := range []struct {
		req    ublktest.Request
		result int32
	}{
		{ublktest.Request{Op: ublk.OpFlush}, failed(unix.EIO)},
		{fua(ublk.OpWrite, 0), failed(unix.EIO)},
		{fua(ublk.OpDiscard, 0), failed(unix.EIO)},
		{fua(ublk.OpWriteZeroes, 0), failed(unix.EIO)},
		{request(ublk.OpWrite), testBytes},
	} {
		f := memoryFile(t, make([]byte, testAt+testBytes))
		target := &Target{Backing: &backing.Backing{FD: int(f.Fd()), Offset: testOffset}}
		d, other := ublktest.NewDisk(t, together, target), ublktest.NewDisk(t, together, target)
		first := true
		tt.req.Ended = func(int32) {
			if first {
				first = false
				wantResult(t, other.Do(ublktest.Request{Op: ublk.OpFlush, Answers: answers(failed(unix.EIO))}), failed(unix.EIO), 1)
			}
		}
		if r := d.Do(tt.req); r.Result != tt.result {
			t.Errorf("%v beside a failed flush: result %d, want %d", tt.req.Op, r.Result, tt.result)
		}
		wantResult(t, d.Do(ublktest.Request{Op: ublk.OpFlush}), 0, 1)
	}
}
