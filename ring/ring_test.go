package ring

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// newRing makes a ring on its own thread. It skips the test if the kernel has
// no io_uring or forbids it.
func newRing(t testing.TB, opts Options) *Ring {
	t.Helper()
	if opts.SingleIssuer {
		runtime.LockOSThread() // the thread ends with the test's goroutine
	}
	r, err := New(opts)
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
		t.Skipf("no io_uring here: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return r
}

// do submits the filled entries and returns the results of n completions.
func do(t testing.TB, r *Ring, n uint32) []int32 {
	t.Helper()
	var res []int32
	for uint32(len(res)) < n {
		if err := r.SubmitAndWait(1); err != nil {
			t.Fatal(err)
		}
		ready := r.CQReady()
		for i := range ready {
			res = append(res, r.CQE(i).Res)
		}
		r.CQAdvance(ready)
	}
	return res
}

var allOptions = map[string]Options{
	"default":       {Entries: 1},
	"single issuer": {Entries: 1, SingleIssuer: true},
	"wide":          {Entries: 1, SQE128: true},
	"wide single":   {Entries: 1, SQE128: true, SingleIssuer: true},
}

// scratchFile returns a file with a page of 'x' and a page of 'y'.
func scratchFile(t testing.TB) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	for _, c := range "xy" {
		page := make([]byte, 4096)
		for i := range page {
			page[i] = byte(c)
		}
		if _, err := f.Write(page); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

// offHeap returns n bytes that Go does not move.
func offHeap(t testing.TB, n int) []byte {
	t.Helper()
	mem, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Munmap(mem) })
	return mem
}

// A one-entry ring uses the same slot for every operation. Values that one
// operation leaves in the entry's unions must not reach the next operation.
func TestSQEIsZeroedForEachUse(t *testing.T) {
	for name, opts := range allOptions {
		t.Run(name, func(t *testing.T) {
			r := newRing(t, opts)
			f := scratchFile(t)
			buf := offHeap(t, 4096)
			if err := r.RegisterBuffers([][]byte{buf}); err != nil {
				t.Fatal(err)
			}
			addr := Address(buf)
			steps := []struct {
				name string
				prep func(*SQE)
				want int32
			}{
				{"fdatasync", func(s *SQE) { s.PrepFsync(FD(int(f.Fd())), IORING_FSYNC_DATASYNC) }, 0},
				{"write after fdatasync", func(s *SQE) { s.PrepWriteFixed(FD(int(f.Fd())), addr, 4096, 0, 0, 0) }, 4096},
				{"command", func(s *SQE) {
					s.PrepURingCmd(FD(int(f.Fd())), 0xffff)
					payload := (*[2]uint64)(s.Payload())
					payload[0], payload[1] = ^uint64(0), ^uint64(0)
				}, -int32(unix.EOPNOTSUPP)},
				{"read after command", func(s *SQE) { s.PrepReadFixed(FD(int(f.Fd())), addr, 4096, 4096, 0) }, 4096},
			}
			for _, step := range steps {
				step.prep(r.GetSQE())
				if got := do(t, r, 1)[0]; got != step.want {
					t.Fatalf("%s: result %d, want %d", step.name, got, step.want)
				}
			}
			if buf[0] != 'y' || buf[4095] != 'y' {
				t.Fatalf("read the wrong bytes: %q", buf[:4])
			}
		})
	}
}

func TestCompletionsComeBackInAnyNumber(t *testing.T) {
	for name, opts := range allOptions {
		t.Run(name, func(t *testing.T) {
			opts.Entries = 8
			r := newRing(t, opts)
			seen := map[uint64]int{}
			next := uint64(0)
			for range 50 {
				n := uint32(0)
				for sqe := r.GetSQE(); sqe != nil; sqe = r.GetSQE() {
					sqe.PrepNop()
					sqe.UserData = next
					next++
					n++
				}
				if n != 8 || r.SQSpace() != 0 {
					t.Fatalf("%d entries and %d more, want 8 and 0", n, r.SQSpace())
				}
				if err := r.SubmitAndWait(n); err != nil {
					t.Fatal(err)
				}
				ready := r.CQReady()
				for i := range ready {
					seen[r.CQE(i).UserData]++
				}
				r.CQAdvance(ready)
			}
			if len(seen) != int(next) {
				t.Fatalf("%d operations completed, want %d", len(seen), next)
			}
			for data, n := range seen {
				if n != 1 {
					t.Fatalf("operation %d completed %d times", data, n)
				}
			}
		})
	}
}

// A ring has the requested sizes, with every set of flags that the kernel grants.
func TestSizes(t *testing.T) {
	plain := newRing(t, Options{})
	if got := plain.SQSpace(); got != 8 {
		t.Errorf("by default there is room for %d entries", got)
	}
	if got := len(plain.cq.cqes); got != 16 {
		t.Errorf("by default there is room for %d completions", got)
	}
	large := newRing(t, Options{Entries: 3, CQEntries: 60})
	if got := large.SQSpace(); got != 4 {
		t.Errorf("there is room for %d entries, not for 4", got)
	}
	if got := len(large.cq.cqes); got != 64 {
		t.Errorf("there is room for %d completions, not for 64", got)
	}
	if got, want := large.Flags(), plain.Flags()|IORING_SETUP_CQSIZE; got != want {
		t.Errorf("flags %#x, not %#x", got, want)
	}
}

// Without IORING_SETUP_NO_SQARRAY (Linux 6.6) the kernel finds entries by an array of indices.
func TestIndirectionArray(t *testing.T) {
	const entries = 4
	p := &ioUringParams{}
	fd, err := ioURingSetup(entries, p)
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
		t.Skipf("no io_uring here: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	r, err := mapRing(fd, p)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	seen := map[uint64]int{}
	for id := range uint64(entries) {
		sqe := r.GetSQE()
		sqe.PrepNop()
		sqe.UserData = id
	}
	if err := r.SubmitAndWait(entries); err != nil {
		t.Fatal(err)
	}
	for i := range r.CQReady() {
		seen[r.CQE(i).UserData]++
	}
	for id := range uint64(entries) {
		if seen[id] != 1 {
			t.Errorf("entry %d completed %d times", id, seen[id])
		}
	}
}

// Issued counts the entries that GetSQE has returned, whether or not they are submitted.
func TestIssued(t *testing.T) {
	r := newRing(t, Options{Entries: 2})
	before := r.Issued()
	r.GetSQE().PrepNop()
	if err := r.Submit(); err != nil {
		t.Fatal(err)
	}
	for sqe := r.GetSQE(); sqe != nil; sqe = r.GetSQE() {
		sqe.PrepNop()
	}
	if n := r.Issued() - before; n != 3 {
		t.Errorf("%d entries issued, want 3", n)
	}
}

func TestQueueOverflowIsAnError(t *testing.T) {
	r := newRing(t, Options{Entries: 2, CQEntries: 2})
	var err error
	for range 4 {
		for range 2 {
			r.GetSQE().PrepNop()
		}
		if err = r.Submit(); err != nil {
			break
		}
	}
	if !errors.Is(err, ErrOverflow) {
		t.Fatalf("8 completions in a queue of 2: error %v, want ErrOverflow", err)
	}
}

// Reserved entries complete silently and leave the queues empty. Reserve
// refuses more entries than the queue holds.
func TestReserve(t *testing.T) {
	for name, opts := range allOptions {
		t.Run(name, func(t *testing.T) {
			opts.Entries = 64
			r := newRing(t, opts)
			if err := r.Reserve(64); err != nil {
				t.Fatal(err)
			}
			if n, space := r.CQReady(), r.SQSpace(); n != 0 || space != 64 {
				t.Fatalf("%d completions, room for %d entries of 64", n, space)
			}
			if err := r.Reserve(65); !errors.Is(err, unix.EINVAL) {
				t.Fatalf("more than the queue holds: error %v, want EINVAL", err)
			}
		})
	}
}

func TestWaitTimesOut(t *testing.T) {
	for name, opts := range allOptions {
		t.Run(name, func(t *testing.T) {
			r := newRing(t, opts)
			start := time.Now()
			err := r.SubmitAndWaitTimeout(1, 20*time.Millisecond)
			if !errors.Is(err, unix.ETIME) {
				t.Fatalf("error %v, want ETIME", err)
			}
			if d := time.Since(start); d < 20*time.Millisecond {
				t.Fatalf("waited %v only", d)
			}
			// An enter that also submits does not report that its wait timed
			// out.
			r.GetSQE().PrepPollAdd(FD(quietFD(t)), unix.POLLIN)
			if err := r.SubmitAndWaitTimeout(1, 20*time.Millisecond); !errors.Is(err, unix.ETIME) {
				t.Fatalf("with an entry: error %v, want ETIME", err)
			}
			r.GetSQE().PrepCancel(0)
			if res := do(t, r, 2); res[0]+res[1] != -int32(unix.ECANCELED) {
				t.Fatalf("cancel: results %d, want 0 and ECANCELED", res)
			}
			r.GetSQE().PrepNop()
			if err := r.SubmitAndWaitTimeout(1, time.Minute); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// quietFD returns a descriptor that never becomes readable.
func quietFD(t testing.TB) int {
	t.Helper()
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	return fd
}

func TestRegisteredRingFD(t *testing.T) {
	r := newRing(t, Options{SingleIssuer: true})
	if err := r.RegisterRingFD(); err != nil {
		t.Fatal(err)
	}
	r.GetSQE().PrepNop()
	if got := do(t, r, 1)[0]; got != 0 {
		t.Fatalf("nop: result %d", got)
	}
}

// A slot of a file table is 4 bytes wide: the second slot must hold the second
// file, not the upper half of the first.
func TestRegisterFilesFillsEachSlot(t *testing.T) {
	r := newRing(t, Options{})
	f := scratchFile(t)
	buf := offHeap(t, 4096)
	if err := r.RegisterBuffers([][]byte{buf}); err != nil {
		t.Fatal(err)
	}
	if err := r.RegisterFiles([]int32{-1, int32(f.Fd())}); err != nil {
		t.Fatal(err)
	}
	for slot, want := range []int32{-int32(unix.EBADF), 4096} {
		r.GetSQE().PrepReadFixed(FixedFile(uint32(slot)), Address(buf), 4096, 0, 0)
		if got := do(t, r, 1)[0]; got != want {
			t.Errorf("read of slot %d: result %d, want %d", slot, got, want)
		}
	}
	if err := r.UpdateFile(0, int32(f.Fd())); err != nil {
		t.Fatal(err)
	}
	r.GetSQE().PrepReadFixed(FixedFile(0), Address(buf), 4096, 0, 0)
	if got := do(t, r, 1)[0]; got != 4096 {
		t.Errorf("read of an updated slot: result %d, want 4096", got)
	}
	r.GetSQE().PrepReadFixed(File{}, Address(buf), 4096, 0, 0)
	if got := do(t, r, 1)[0]; got != -int32(unix.EBADF) {
		t.Errorf("read of no file: result %d, want EBADF", got)
	}
	if err := r.UnregisterFiles(); err != nil {
		t.Fatal(err)
	}
	if err := r.RegisterFiles(nil); !errors.Is(err, unix.EINVAL) {
		t.Fatalf("empty table: error %v, want EINVAL", err)
	}
}

func TestUpdateBufferOfASparseTable(t *testing.T) {
	r := newRing(t, Options{})
	f := scratchFile(t)
	buf := offHeap(t, 4096)
	if err := r.RegisterBuffersSparse(4); err != nil {
		t.Fatal(err)
	}
	read := func() int32 {
		r.GetSQE().PrepReadFixed(FD(int(f.Fd())), Address(buf), 4096, 0, 3)
		return do(t, r, 1)[0]
	}
	if got := read(); got != -int32(unix.EFAULT) {
		t.Fatalf("read into an empty slot: result %d, want EFAULT", got)
	}
	if err := r.UpdateBuffers(3, [][]byte{buf}); err != nil {
		t.Fatal(err)
	}
	if got := read(); got != 4096 {
		t.Fatalf("read: result %d", got)
	}
	if err := r.UpdateBuffers(3, [][]byte{nil}); err != nil {
		t.Fatal(err)
	}
	if got := read(); got != -int32(unix.EFAULT) {
		t.Fatalf("read into a slot emptied: result %d, want EFAULT", got)
	}
	if err := r.UnregisterBuffers(); err != nil {
		t.Fatal(err)
	}
}

func TestProbe(t *testing.T) {
	r := newRing(t, Options{})
	p, err := r.NewProbe()
	if err != nil {
		t.Fatal(err)
	}
	if !p.Supports(IORING_OP_NOP) || p.Supports(255) {
		t.Fatalf("nop %v, operation 255 %v", p.Supports(IORING_OP_NOP), p.Supports(255))
	}
}

func TestCloseIsSafeTwiceAndLeavesNothing(t *testing.T) {
	before := countFDs(t)
	for name, opts := range allOptions {
		t.Run(name, func(t *testing.T) {
			r := newRing(t, opts)
			if opts.SingleIssuer {
				if err := r.RegisterRingFD(); err != nil {
					t.Fatal(err)
				}
			}
			for range 2 {
				if err := r.Close(); err != nil {
					t.Fatal(err)
				}
			}
			if r.FD() != -1 {
				t.Fatalf("descriptor %d after Close", r.FD())
			}
		})
	}
	if after := countFDs(t); after != before {
		t.Fatalf("%d descriptors, %d before", after, before)
	}
}

func countFDs(t testing.TB) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestTurnAllocatesNothing(t *testing.T) {
	r := newRing(t, Options{Entries: 8, SingleIssuer: true})
	turn := func() {
		for range 8 {
			r.GetSQE().PrepNop()
		}
		if err := r.SubmitAndWait(8); err != nil {
			t.Fatal(err)
		}
		r.CQAdvance(r.CQReady())
	}
	if n := testing.AllocsPerRun(100, turn); n != 0 {
		t.Fatalf("%v allocations a turn", n)
	}
}

func BenchmarkNop(b *testing.B) {
	for _, batch := range []uint32{1, 32, 128} {
		b.Run(map[uint32]string{1: "1", 32: "32", 128: "128"}[batch], func(b *testing.B) {
			r := newRing(b, Options{Entries: 128, SingleIssuer: true})
			b.ReportAllocs()
			for n := 0; n < b.N; n += int(batch) {
				for range batch {
					r.GetSQE().PrepNop()
				}
				if err := r.SubmitAndWait(batch); err != nil {
					b.Fatal(err)
				}
				r.CQAdvance(r.CQReady())
			}
		})
	}
}

func TestRegisterIOWQMaxWorkers(t *testing.T) {
	runtime.LockOSThread() // workers belong to the thread, which ends with the test's goroutine
	r := newRing(t, Options{})
	if _, _, err := r.RegisterIOWQMaxWorkers(3, 5); err != nil {
		t.Fatal(err)
	}
	files, others, err := r.RegisterIOWQMaxWorkers(0, 0)
	if err != nil || files != 3 || others != 5 {
		t.Errorf("%d and %d workers, error %v; want 3 and 5", files, others, err)
	}
}
