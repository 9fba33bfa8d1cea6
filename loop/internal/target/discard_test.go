package target

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/loop/internal/backing"
	"github.com/ublk-loop/ublk-loop/ring"
	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// ranged is a request that changes a range, with the expected operations.
type ranged struct {
	name   string
	op     ublk.Op
	flags  ublk.Flags
	isDisk bool
	zero   bool     // the file lacks ZERO_RANGE
	steps  []string // names from stepOf
}

// rangeds lists all paths of requests that change a range.
var rangeds = []ranged{
	{"discard", ublk.OpDiscard, 0, false, false, []string{"punch"}},
	{"discard of a disk", ublk.OpDiscard, 0, true, false, []string{"discard"}},
	{"discard with FUA", ublk.OpDiscard, ublk.FlagFUA, false, false, []string{"punch", "sync"}},
	{"discard in place, which there is not", ublk.OpDiscard, ublk.FlagNoUnmap, false, false, []string{"punch"}},
	{"write-zeroes", ublk.OpWriteZeroes, 0, false, false, []string{"punch"}},
	{"write-zeroes of a disk", ublk.OpWriteZeroes, 0, true, false, []string{"punch"}},
	{"write-zeroes with FUA", ublk.OpWriteZeroes, ublk.FlagFUA, false, false, []string{"punch", "sync"}},
	{"write-zeroes of a disk with FUA", ublk.OpWriteZeroes, ublk.FlagFUA, true, false, []string{"punch", "sync"}},
	{"write-zeroes in place", ublk.OpWriteZeroes, ublk.FlagNoUnmap, false, false, []string{"zero"}},
	{"write-zeroes in place with FUA", ublk.OpWriteZeroes, ublk.FlagNoUnmap | ublk.FlagFUA, false, false, []string{"zero", "sync"}},
	{"write-zeroes in place of a disk", ublk.OpWriteZeroes, ublk.FlagNoUnmap | ublk.FlagFUA, true, false, []string{"zero", "sync"}},
	{"write-zeroes in place without a way to", ublk.OpWriteZeroes, ublk.FlagNoUnmap, false, true, []string{"zero", "punch", "allocate"}},
	{
		"write-zeroes in place without a way to, with FUA", ublk.OpWriteZeroes, ublk.FlagNoUnmap | ublk.FlagFUA, false, true,
		[]string{"zero", "punch", "allocate", "sync"},
	},
}

func (r ranged) request(results ...int32) ublktest.Request {
	return ublktest.Request{Op: r.op, Flags: r.flags, StartSector: testStart, Sectors: testBytes / 512, Answers: results}
}

// results returns successful answers for all steps, except for a missing ZERO_RANGE.
func (r ranged) results() []int32 {
	list := make([]int32, len(r.steps))
	if r.zero {
		list[0] = failed(unix.EOPNOTSUPP)
	}
	return list
}

func (r ranged) serve(t *testing.T) *ublktest.Disk {
	t.Helper()
	d, _ := serveFile(t, together, func(b *backing.Backing) { b.IsDisk = r.isDisk })
	return d
}

// stepOf returns the name of an operation on the tests' range, or describes what is wrong
// with it.
func stepOf(e ring.SQE) string {
	const start, n = testAt, testBytes
	switch {
	case e.Flags&ring.IOSQE_FIXED_FILE == 0:
		return fmt.Sprintf("another file: %+v", e)
	case e.Opcode == ring.IORING_OP_FSYNC && e.OpFlags == ring.IORING_FSYNC_DATASYNC && e.Off == 0 && e.Len == 0:
		return "sync"
	case e.Opcode == ring.IORING_OP_URING_CMD && e.Off == uint64(backing.BLOCK_URING_CMD_DISCARD) && e.Addr == start && e.Addr3 == n:
		return "discard"
	case e.Opcode != ring.IORING_OP_FALLOCATE || e.Off != start || e.Addr != n:
		return fmt.Sprintf("%+v", e)
	}
	switch e.Len {
	case unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE:
		return "punch"
	case unix.FALLOC_FL_ZERO_RANGE | unix.FALLOC_FL_KEEP_SIZE:
		return "zero"
	case unix.FALLOC_FL_KEEP_SIZE:
		return "allocate"
	}
	return fmt.Sprintf("fallocate with mode %#x", e.Len)
}

func wantSteps(t *testing.T, r ublktest.Reply, result int32, steps ...string) {
	t.Helper()
	var got []string
	for _, e := range r.Entries {
		got = append(got, stepOf(e))
	}
	if r.Result != result || !slices.Equal(got, steps) {
		t.Errorf("result %d of %q; want %d of %q", r.Result, got, result, steps)
	}
}

// inEachRange runs a test for each path of a request.
func inEachRange(t *testing.T, test func(*testing.T, ranged)) {
	t.Helper()
	for _, r := range rangeds {
		t.Run(r.name, func(t *testing.T) { test(t, r) })
	}
}

func TestRangeSteps(t *testing.T) {
	inEachRange(t, func(t *testing.T, r ranged) {
		d := r.serve(t)
		wantSteps(t, d.Do(r.request(r.results()...)), 0, r.steps...)
		if got := d.Stats().Ops[r.op]; got.Requests != 1 || got.Errors != 0 || got.Bytes != testBytes {
			t.Errorf("counted %d requests, %d errors, %d bytes", got.Requests, got.Errors, got.Bytes)
		}
	})
}

// Any errno from any step becomes the request's result, and no further step follows.
func TestRangeErrno(t *testing.T) {
	inEachRange(t, func(t *testing.T, r ranged) {
		d := r.serve(t)
		n := uint64(0)
		for step := range r.steps {
			for _, errno := range append(errnos, unix.EAGAIN, unix.EOPNOTSUPP) {
				if r.op == ublk.OpWriteZeroes && r.flags&ublk.FlagNoUnmap != 0 && !r.isDisk && step == 0 && errno == unix.EOPNOTSUPP {
					continue // the other steps handle this
				}
				if r.steps[0] == "discard" && errno == unix.EOPNOTSUPP {
					continue // the test of the worker thread covers this
				}
				results := r.results()[:step+1]
				results[step] = failed(errno)
				wantSteps(t, d.Do(r.request(results...)), failed(errno), r.steps[:step+1]...)
				if n++; d.Stats().Ops[r.op].Errors != n {
					t.Errorf("%d errors are counted, want %d", d.Stats().Ops[r.op].Errors, n)
				}
			}
		}
	})
}

// After an interrupted step, the request starts again or repeats the step. In both cases
// it carries out all steps.
func TestRangeInterrupted(t *testing.T) {
	inEachRange(t, func(t *testing.T, r ranged) {
		d := r.serve(t)
		for step, name := range r.steps {
			results := r.results()
			again := results
			steps := slices.Concat(r.steps[:step+1], r.steps)
			if name == "sync" {
				again, steps = results[step:], slices.Concat(r.steps, r.steps[step:])
			}
			list := slices.Concat(results[:step], answers(failed(unix.EINTR)), again)
			before := d.Stats().Retries
			wantSteps(t, d.Do(r.request(list...)), 0, steps...)
			if n := d.Stats().Retries - before; n != 1 {
				t.Errorf("interrupted at %q: %d retries are counted, want 1", name, n)
			}
		}
	})
}

// If a disk refuses a discard without blocking, the discard is repeated once on a worker
// thread.
func TestDiscardRefused(t *testing.T) {
	r := rangeds[1]
	if r.name != "discard of a disk" {
		t.Fatal(r.name)
	}
	no := failed(unix.EOPNOTSUPP)
	for _, tt := range []struct {
		results []int32
		want    int32
		steps   []string
	}{
		{answers(no, 0), 0, []string{"discard", "discard"}},
		{answers(no, no), no, []string{"discard", "discard"}},
		{answers(no, failed(unix.EIO)), failed(unix.EIO), []string{"discard", "discard"}},
	} {
		d := r.serve(t)
		reply := d.Do(r.request(tt.results...))
		wantSteps(t, reply, tt.want, tt.steps...)
		for i, e := range reply.Entries {
			if async := e.Flags&ring.IOSQE_ASYNC != 0; async != (i > 0) {
				t.Errorf("%d: operation %d on a worker thread: %v", tt.results, i, async)
			}
		}
		if n := d.Stats().Retries; n != 1 {
			t.Errorf("%d retries are counted, want 1", n)
		}
	}
	for _, other := range []ranged{rangeds[0], {"write-zeroes of a disk", ublk.OpWriteZeroes, 0, true, false, nil}} {
		wantResult(t, other.serve(t).Do(other.request(no)), no, 1)
	}
}

// A discard can be longer than 32 bits can express.
func TestRangeOfTerabytes(t *testing.T) {
	for _, isDisk := range []bool{false, true} {
		for _, op := range []ublk.Op{ublk.OpDiscard, ublk.OpWriteZeroes} {
			d, _ := serveFile(t, together, func(b *backing.Backing) { b.IsDisk = isDisk })
			r := d.Do(ublktest.Request{Op: op, StartSector: 1 << 40, Sectors: 0xfffffff8, Answers: answers(0)})
			wantResult(t, r, 0, 1)
			const start, n = testOffset + 1<<49, 0xfffffff8 << 9
			e := r.Entries[0]
			if isDisk && op == ublk.OpDiscard {
				if e.Addr != start || e.Addr3 != n {
					t.Errorf("%v of a disk: %d bytes at %d", op, e.Addr3, e.Addr)
				}
			} else if e.Off != start || e.Addr != n {
				t.Errorf("%v: %d bytes at %d", op, e.Addr, e.Off)
			}
		}
	}
}

// The kernel carries out the request, and changes nothing else. A file in memory lacks
// ZERO_RANGE.
func TestRangeReal(t *testing.T) {
	for _, r := range rangeds {
		if r.isDisk {
			continue
		}
		t.Run(r.name, func(t *testing.T) {
			f := memoryFile(t, bytes.Repeat([]byte{0xee}, 64<<10))
			d := ublktest.NewDisk(t, alone, &Target{Backing: &backing.Backing{FD: int(f.Fd())}})
			req := r.request()
			req.StartSector, req.Sectors = 32, 32 // in a file of 4 pages of 4 KiB
			before := blocks(t, f)
			if got := d.Do(req).Result; got != 0 {
				t.Errorf("result %d", got)
			}
			got, err := os.ReadFile(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
			if err != nil {
				t.Fatal(err)
			}
			want := bytes.Repeat([]byte{0xee}, 64<<10)
			clear(want[16<<10 : 32<<10])
			if !bytes.Equal(got, want) {
				t.Error("other bytes are zero than were asked for")
			}
			freed := int64(16 << 10 / 512)
			if r.op == ublk.OpWriteZeroes && r.flags&ublk.FlagNoUnmap != 0 {
				freed = 0
			}
			if n := before - blocks(t, f); n != freed {
				t.Errorf("%d blocks were given back, want %d", n, freed)
			}
		})
	}
}

func blocks(t *testing.T, f *os.File) int64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks
}

// The kernel's own errors, from the first step and from later steps, become the request's
// result.
func TestRangeRealErrno(t *testing.T) {
	for _, r := range rangeds {
		if r.isDisk {
			continue
		}
		t.Run(r.name, func(t *testing.T) {
			sealed := memoryFile(t, make([]byte, 64<<10))
			seal(t, sealed, unix.F_SEAL_WRITE)
			_, writer := pipe(t)
			for _, tt := range []struct {
				fd   int
				want unix.Errno
			}{{int(sealed.Fd()), unix.EPERM}, {writer, unix.ESPIPE}} {
				d := ublktest.NewDisk(t, alone, &Target{Backing: &backing.Backing{FD: tt.fd}})
				if got := d.Do(r.request()).Result; got != failed(tt.want) {
					t.Errorf("result %d, want %v", got, tt.want)
				}
			}
		})
	}
}
