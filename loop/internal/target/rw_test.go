package target

import (
	"bytes"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/loop/internal/backing"
	"github.com/ublk-loop/ublk-loop/ring"
	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// The requests of these tests are 8 sectors in the middle of a device that does not start
// at the beginning of its file.
const (
	testOffset = 3 * 4096
	testStart  = 5
	testBytes  = 8 * 512
	testAt     = testOffset + testStart*512 // in the file
)

// inEachDepth runs a test for a read and a write, in a queue where a request is alone and
// in a queue where it may not be.
func inEachDepth(t *testing.T, test func(t *testing.T, op ublk.Op, depth int)) {
	t.Helper()
	for _, op := range []ublk.Op{ublk.OpRead, ublk.OpWrite} {
		for _, depth := range []int{alone, together} {
			t.Run(fmt.Sprintf("%v in a queue of %d", op, depth), func(t *testing.T) { test(t, op, depth) })
		}
	}
}

// request returns a read or write of the tests' range.
func request(op ublk.Op, results ...int32) ublktest.Request {
	req := ublktest.Request{Op: op, StartSector: testStart, Sectors: testBytes / 512, Answers: results}
	if op == ublk.OpWrite {
		req.Data = pattern(testBytes)
	}
	return req
}

// serveFile serves a file in memory that is longer than the tests' range. change may
// change the backing.
func serveFile(t *testing.T, depth int, change func(*backing.Backing)) (*ublktest.Disk, *os.File) {
	t.Helper()
	f := memoryFile(t, bytes.Repeat([]byte("0123456789abcde"), 4096))
	b := &backing.Backing{FD: int(f.Fd()), Offset: testOffset}
	if change != nil {
		change(b)
	}
	return ublktest.NewDisk(t, depth, &Target{Backing: b}), f
}

// content returns the file's content in the tests' range.
func content(t *testing.T, f *os.File) []byte {
	t.Helper()
	p := make([]byte, testBytes)
	if _, err := f.ReadAt(p, testAt); err != nil {
		t.Fatal(err)
	}
	return p
}

// A successful request is one operation on all its bytes, and the kernel carries out its
// commit.
func TestDataIsOneOperation(t *testing.T) {
	inEachDepth(t, func(t *testing.T, op ublk.Op, depth int) {
		d, f := serveFile(t, depth, nil)
		r := d.Do(request(op))
		wantResult(t, r, testBytes, 1)
		want := pattern(testBytes)
		if op == ublk.OpRead {
			want = r.Data
		}
		if !bytes.Equal(content(t, f), want) {
			t.Error("other bytes than the file's")
		}
		if want := linkable(t); r.Linked != want {
			t.Errorf("left to the kernel: %v, want %v", r.Linked, want)
		}
		e := r.Entries[0]
		opcode := map[ublk.Op]uint8{ublk.OpRead: ring.IORING_OP_READ_FIXED, ublk.OpWrite: ring.IORING_OP_WRITE_FIXED}[op]
		if e.Opcode != opcode || e.Off != testAt || e.Len != testBytes || e.Flags&ring.IOSQE_FIXED_FILE == 0 || e.OpFlags != 0 {
			t.Errorf("asked for %+v", e)
		}
	})
}

// The largest sector number of the block layer does not overflow.
func TestDataFarOut(t *testing.T) {
	inEachDepth(t, func(t *testing.T, op ublk.Op, depth int) {
		d, _ := serveFile(t, depth, nil)
		req := request(op, failed(unix.EFBIG))
		req.StartSector = 1 << 53
		r := d.Do(req)
		wantResult(t, r, failed(unix.EFBIG), 1)
		if want := uint64(testOffset + 1<<62); r.Entries[0].Off != want {
			t.Errorf("at %d, want %d", r.Entries[0].Off, want)
		}
	})
}

// Each part of a FUA write is synchronous, and no other write is.
func TestWriteFUA(t *testing.T) {
	for _, depth := range []int{alone, together} {
		d, _ := serveFile(t, depth, nil)
		req := request(ublk.OpWrite)
		req.Flags = ublk.FlagFUA
		r := d.Do(req)
		wantResult(t, r, testBytes, 1)
		if flags := r.Entries[0].OpFlags; flags != unix.RWF_DSYNC {
			t.Errorf("flags %#x of a FUA write, want RWF_DSYNC", flags)
		}
		req = request(ublk.OpRead)
		req.Flags = ublk.FlagFUA
		r = d.Do(req)
		wantResult(t, r, testBytes, 1)
		if flags := r.Entries[0].OpFlags; flags != 0 {
			t.Errorf("flags %#x of a read, want none", flags)
		}
	}
	d, _ := serveFile(t, together, nil)
	req := request(ublk.OpWrite, failed(unix.EINTR), 512, failed(unix.EAGAIN))
	req.Flags = ublk.FlagFUA
	r := d.Do(req)
	wantResult(t, r, testBytes, 4)
	for i, e := range r.Entries {
		if e.OpFlags != unix.RWF_DSYNC {
			t.Errorf("flags %#x of part %d, want RWF_DSYNC", e.OpFlags, i)
		}
	}
}

// Any errno becomes the request's result at once, for the first operation and for a later
// one.
func TestDataErrno(t *testing.T) {
	inEachDepth(t, func(t *testing.T, op ublk.Op, depth int) {
		d, f := serveFile(t, depth, nil)
		before := content(t, f)
		for i, errno := range errnos {
			wantResult(t, d.Do(request(op, failed(errno))), failed(errno), 1)
			if got := d.Stats().Ops[op]; got.Requests != uint64(i+1) || got.Errors != uint64(i+1) {
				t.Errorf("%d requests and %d errors are counted, want %d", got.Requests, got.Errors, i+1)
			}
		}
		if !bytes.Equal(content(t, f), before) {
			t.Error("the file has changed")
		}
		for _, errno := range errnos {
			wantResult(t, d.Do(request(op, 1024, failed(errno))), failed(errno), 2)
			wantResult(t, d.Do(request(op, 512, 512, 1, failed(errno))), failed(errno), 4)
		}
	})
}

// After a short result, the request continues behind it, whatever the number of bytes.
func TestDataShort(t *testing.T) {
	for _, op := range []ublk.Op{ublk.OpRead, ublk.OpWrite} {
		d, f := serveFile(t, together, nil)
		was := content(t, f)
		for _, parts := range [][]int32{
			{1}, {511}, {512}, {513}, {2048}, {testBytes - 1}, {1, 1, 1}, {4000, 95}, {512, 1024, 1536, 1024},
		} {
			r := d.Do(request(op, parts...))
			done := 0
			for i, e := range r.Entries {
				if e.Off != testAt+uint64(done) || e.Len != uint32(testBytes-done) || e.Addr != r.Entries[0].Addr+uint64(done) {
					t.Errorf("%v in parts %d: part %d asks for %d bytes at %d for %d", op, parts, i, e.Len, e.Off, e.Addr)
				}
				if i < len(parts) {
					done += int(parts[i])
				}
			}
			operations := len(parts)
			if done < testBytes {
				operations++ // an operation for the rest
			}
			wantResult(t, r, testBytes, operations)
			if op == ublk.OpRead && done < testBytes && !bytes.Equal(r.Data[done:], was[done:]) {
				t.Errorf("a read in parts %d has other bytes than the file", parts)
			}
		}
		if op == ublk.OpWrite && !bytes.Equal(content(t, f)[1:], pattern(testBytes)[1:]) {
			t.Error("writes in parts have left other bytes")
		}
	}
}

// A read behind the end of a truncated file fails, whether all or only a part of it is
// behind the end.
func TestReadBehindTheEnd(t *testing.T) {
	for _, depth := range []int{alone, together} {
		for _, tt := range []struct {
			left       int64 // bytes that are left of the range
			operations int
		}{{0, 1}, {-4096, 1}, {1, 2}, {512, 2}, {700, 2}, {testBytes - 1, 2}} {
			d, f := serveFile(t, depth, nil)
			if err := f.Truncate(testAt + tt.left); err != nil {
				t.Fatal(err)
			}
			wantResult(t, d.Do(request(ublk.OpRead)), failed(unix.EIO), tt.operations)
		}
	}
}

// A write without progress fails.
func TestWriteWithoutProgress(t *testing.T) {
	d, _ := serveFile(t, together, nil)
	wantResult(t, d.Do(request(ublk.OpWrite, 0)), failed(unix.EIO), 1)
	wantResult(t, d.Do(request(ublk.OpWrite, 100, 0)), failed(unix.EIO), 2)
}

// Direct I/O continues at a sector boundary and repeats a partial sector. Less than a
// sector is no progress.
func TestDirectGoesOnAtASector(t *testing.T) {
	for _, tt := range []struct {
		sector  uint32
		results []int32
		offs    []uint64 // in the request
		want    int32
	}{
		{512, answers(700, testBytes-512), []uint64{0, 512}, testBytes},
		{512, answers(1024, 1, 511), []uint64{0, 1024}, failed(unix.EIO)},
		{512, answers(511), []uint64{0}, failed(unix.EIO)},
		{1024, answers(2047, 3072), []uint64{0, 1024}, testBytes},
		{4096, answers(4095), []uint64{0}, failed(unix.EIO)},
		{2048, answers(2048, 2048), []uint64{0, 2048}, testBytes},
	} {
		for _, op := range []ublk.Op{ublk.OpRead, ublk.OpWrite} {
			d, _ := serveFile(t, together, func(b *backing.Backing) { b.Direct, b.SectorSize = true, tt.sector })
			r := d.Do(request(op, tt.results...))
			wantResult(t, r, tt.want, len(tt.offs))
			for i, e := range r.Entries {
				if off := e.Off - testAt; off != tt.offs[i] || e.Len != uint32(testBytes-off) {
					t.Errorf("%v, sectors of %d, parts %d: part %d is %d bytes at %d", op, tt.sector, tt.results, i, e.Len, off)
				}
			}
		}
	}
}

// An interrupted operation is repeated as often as necessary.
func TestDataInterrupted(t *testing.T) {
	inEachDepth(t, func(t *testing.T, op ublk.Op, depth int) {
		d, f := serveFile(t, depth, nil)
		r := d.Do(request(op, failed(unix.EINTR), failed(unix.EINTR), failed(unix.EINTR)))
		wantResult(t, r, testBytes, 4)
		if op == ublk.OpRead && !bytes.Equal(r.Data, content(t, f)) || op == ublk.OpWrite && !bytes.Equal(content(t, f), pattern(testBytes)) {
			t.Error("other bytes")
		}
		if n := d.Stats().Retries; n != 3 {
			t.Errorf("%d retries are counted, want 3", n)
		}
		wantResult(t, d.Do(request(op, failed(unix.EINTR), failed(unix.EIO))), failed(unix.EIO), 2)
	})
}

// If an operation would block, it is repeated once on a worker thread, which can block.
// The rest of the request follows there.
func TestDataAgain(t *testing.T) {
	inEachDepth(t, func(t *testing.T, op ublk.Op, depth int) {
		d, _ := serveFile(t, depth, nil)
		for _, tt := range []struct {
			results    []int32
			want       int32
			operations int
		}{
			{answers(failed(unix.EAGAIN)), testBytes, 2},
			{answers(failed(unix.EAGAIN), failed(unix.EAGAIN)), failed(unix.EAGAIN), 2},
			{answers(failed(unix.EAGAIN), 512), testBytes, 3},
			{answers(failed(unix.EAGAIN), failed(unix.EINTR)), testBytes, 3},
			{answers(failed(unix.EAGAIN), failed(unix.ENOSPC)), failed(unix.ENOSPC), 2},
		} {
			r := d.Do(request(op, tt.results...))
			wantResult(t, r, tt.want, tt.operations)
			for i, e := range r.Entries {
				if async := e.Flags&ring.IOSQE_ASYNC != 0; async != (i > 0) {
					t.Errorf("%d: operation %d on a worker thread: %v", tt.results, i, async)
				}
			}
		}
	})
}

// Two requests in flight do not affect each other.
func TestDataSideBySide(t *testing.T) {
	d, f := serveFile(t, together, nil)
	first := request(ublk.OpRead, 512, failed(unix.EAGAIN), 700)
	second := request(ublk.OpRead, 1024, 1, failed(unix.ENODEV))
	a, b := d.Begin(first), d.Begin(second)
	r := a()
	wantResult(t, r, testBytes, 4)
	if !bytes.Equal(r.Data[1212:], content(t, f)[1212:]) {
		t.Error("other bytes than the file's")
	}
	wantResult(t, b(), failed(unix.ENODEV), 3)
}

func TestReadOnlyRefusesWrites(t *testing.T) {
	for _, depth := range []int{alone, together} {
		d, f := serveFile(t, depth, func(b *backing.Backing) { b.ReadOnly = true })
		before := content(t, f)
		for _, op := range []ublk.Op{ublk.OpWrite, ublk.OpDiscard, ublk.OpWriteZeroes} {
			wantResult(t, d.Do(request(op)), failed(unix.EROFS), 0)
		}
		wantResult(t, d.Do(request(ublk.OpRead)), testBytes, 1)
		if !bytes.Equal(content(t, f), before) {
			t.Error("the file has changed")
		}
	}
}
