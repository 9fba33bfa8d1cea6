package ublk

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ring"
	"github.com/ublk-loop/ublk-loop/ublk/uapi"
)

// failEnters makes every io_uring_enter of this thread fail. The thread ends with the test.
func failEnters(t *testing.T, errno unix.Errno) {
	t.Helper()
	const answer = unix.BPF_RET | unix.BPF_K
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS}, // the number of the system call
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_IO_URING_ENTER, Jf: 1},
		{Code: answer, K: unix.SECCOMP_RET_ERRNO | uint32(errno)},
		{Code: answer, K: unix.SECCOMP_RET_ALLOW},
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	err := unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&program)), 0, 0)
	if errors.Is(err, unix.EINVAL) {
		t.Skip("this kernel has no filters of system calls")
	}
	if err != nil {
		t.Fatal(err)
	}
}

// If the ring takes no more entries, the handler gets one that is never submitted, and the thread
// ends with the reason.
func TestThreadWithABrokenRing(t *testing.T) {
	b := onBench(t, BufferCopy, "/dev/null")
	failEnters(t, unix.EIO)
	for b.thread.ring.SQSpace() > 0 {
		b.thread.sqe().PrepNop()
	}
	if b.thread.broken != nil {
		t.Fatalf("broken before it is full: %v", b.thread.broken)
	}
	sqe := b.thread.sqe()
	if sqe == nil || sqe != &b.thread.spare || !errors.Is(b.thread.broken, unix.EIO) {
		t.Errorf("entry %p, error %v; want the spare one and EIO", sqe, b.thread.broken)
	}
}

// The ring has room for both entries of every tag, and for the entries that its worker threads
// have not freed. So the kernel never takes a linked pair in two parts.
func TestRingHasRoomForEveryTag(t *testing.T) {
	for _, depth := range []int{1, 2, 7, 64, 128, 4096} {
		if n := (&threadKind{depth: depth}).entries(); n < 2*depth+workersOf(depth) || workersOf(depth) < 1 {
			t.Errorf("%d entries for %d tags", n, depth)
		}
		if n := (&threadKind{depth: depth, extraParts: 3}).entries(); n < 2*depth+3+workersOf(depth) {
			t.Errorf("%d entries for %d tags with 3 extra parts", n, depth)
		}
	}
}

// A busy thread yields once in yieldEvery, and looks at the clock once in clockAfter completions.
func TestBusyThreadYields(t *testing.T) {
	th := &thread{}
	for i, tt := range []struct {
		clock time.Duration
		n     uint32
		want  bool
	}{
		{time.Hour, clockAfter - 1, false}, // no look at the clock
		{yieldEvery - 1, 1, false},
		{yieldEvery, clockAfter - 1, false},
		{yieldEvery, 1, true},
		{2*yieldEvery - 1, clockAfter, false},
		{2*yieldEvery - 1, clockAfter + 1, false},
		{2 * yieldEvery, clockAfter - 1, false},
		{2 * yieldEvery, 1, true},
		{2 * yieldEvery, clockAfter, false},
		{10 * yieldEvery, 2 * clockAfter, true},
	} {
		th.clock = tt.clock
		if got := th.mustYield(tt.n); got != tt.want {
			t.Errorf("step %d, %d completions at %v: yields %v", i, tt.n, tt.clock, got)
		}
	}
}

// A thread without work sleeps in the kernel until there is a completion.
func TestIdleThreadSleeps(t *testing.T) {
	q := serveNull(t, 1, HandlerFunc(func(*Request) {})) // which keeps the first request
	tid := 0
	if err := q.thread.do(func() error { tid = unix.Gettid(); return nil }); err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("%d ", unix.SYS_IO_URING_ENTER)
	for deadline := time.Now().Add(20 * time.Second); ; runtime.Gosched() {
		// The number of the system call and its arguments: the descriptor, how many
		// entries to submit, and how many completions to wait for (proc_pid_syscall(5)).
		text, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/syscall", tid))
		if err != nil {
			t.Fatal(err)
		}
		if fields := strings.Fields(string(text)); strings.HasPrefix(string(text), want) && fields[3] == "0x1" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the thread does not sleep: %s", text)
		}
	}
}

// Consecutive completions of one queue are one turn. The turn ends when a completion of another
// queue follows.
func TestTurnEndsWithAnotherQueue(t *testing.T) {
	b := onBench(t, BufferCopy, "/dev/null")
	other := &Queue{dev: b.dev, depth: 1, thread: b.thread, counters: newCounters(1)[0], handler: HandlerFunc(func(*Request) {})}
	other.bufs = b.bufs
	other.descs = []uapi.IODesc{{OpFlags: uint32(OpFlush)}}
	other.newRequests()
	b.thread.queues[0] = other
	deliver := func(q *Queue, tag uint16) {
		t.Helper()
		if err := b.thread.complete(q.userData(kindFetch, tag), uapi.UBLK_IO_RES_OK); err != nil {
			t.Fatal(err)
		}
	}
	inService := func(want int64) {
		t.Helper()
		if n := b.counters.inService.Load(); n != want {
			t.Errorf("%d requests are published, want %d", n, want)
		}
	}
	deliver(b.Queue, 0)
	deliver(b.Queue, 1)
	inService(0)
	deliver(other, 0)
	inService(2)
	if b.thread.current != other {
		t.Error("the turn is not the other queue's")
	}
}

// A link that is cut ends the device with an error: the entries behind the cut would not wait
// for those before it.
func TestCutLinkEndsTheDevice(t *testing.T) {
	q := serveNull(t, 1, HandlerFunc(func(req *Request) {
		sqe := req.SQE()
		sqe.PrepNop()
		sqe.Flags |= ring.IOSQE_IO_LINK // to an entry that does not come
	}))
	if err := within(t, q.ends, "the queue's end"); !errors.Is(err, ring.ErrLinkCut) {
		t.Errorf("the queue ends with %v, want ErrLinkCut", err)
	}
}
