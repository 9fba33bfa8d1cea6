package ublk

import (
	"errors"
	"runtime"
	"slices"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ring"
	"github.com/ublk-loop/ublk-loop/ublk/uapi"
)

// bench is a queue on this thread whose commands go to a file in place of /dev/ublkcN. The test
// plays the driver, and passes completions to the queue.
type bench struct {
	*Queue
	t       *testing.T
	ends    chan error
	entries []ring.SQE // the submission queue
	next    int        // the index of the next entry in entries
	handled []int      // tags of the handler's requests
}

const benchDepth = 4

// onBench makes a queue in the second slot of its thread.
func onBench(t *testing.T, mode BufferMode, commands string) *bench {
	t.Helper()
	runtime.LockOSThread() // the thread ends with the test's goroutine
	fd, err := unix.Open(commands, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	pool := NewThreads(0, func(err error) { t.Error(err) })
	th, err := newThread(pool, threadKind{depth: benchDepth, mode: mode, files: defaultFiles}, 2)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		th.wakeMu.Lock() // a goroutine that has ended the queue may still wake the thread
		defer th.wakeMu.Unlock()
		_ = closeFD(&th.wakeFD)
	})
	if err = th.newRing(); errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
		t.Skipf("no io_uring here: %v", err)
	}
	if err = errors.Join(err, th.newTables()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = th.ring.Close() })
	b := &bench{t: t, ends: make(chan error, 2)}
	th.slots = []bool{true, true}
	d := &Device{charFD: fd, counters: newCounters(1), info: Info{MaxIOBytes: 8192}}
	b.Queue = &Queue{
		dev: d, id: 3, depth: benchDepth, mode: mode, thread: th, slot: 1, ended: b.ends,
		counters: d.counters[0], descs: make([]uapi.IODesc, benchDepth), reqs: make([]Request, benchDepth),
	}
	th.queues[1] = b.Queue
	for tag := range b.reqs {
		b.reqs[tag].q, b.reqs[tag].tag = b.Queue, uint16(tag)
	}
	b.handler, b.done, b.hasDone = b, b, true
	if b.bufs, err = newBuffers(mode, 1, benchDepth, 8192, ""); err != nil {
		t.Fatal(err)
	}
	if err := b.bufs.register(th.ring, here); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.bufs.free)
	b.armed = benchDepth
	b.view()
	return b
}

// end does what other goroutines want done on the thread, and returns the queue's error when
// the queue has ended.
func (b *bench) end() error {
	b.t.Helper()
	for {
		select {
		case job := <-b.thread.jobs:
			job()
		case err := <-b.ends:
			return err
		case <-time.After(20 * time.Second):
			b.t.Fatal("the queue does not end")
		}
	}
}

// here is the do of a ring of this thread.
func here(f func() error) error { return f() }

// view maps the submission queue, and finds the next entry.
func (b *bench) view() {
	size := unsafe.Sizeof(ring.SQE{})
	n := uintptr(b.thread.ring.SQSpace())
	mem, err := unix.Mmap(b.thread.ring.FD(), ring.IORING_OFF_SQES, int(n*size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = unix.Munmap(mem) })
	b.entries = unsafe.Slice((*ring.SQE)(unsafe.Pointer(&mem[0])), n) // as many as the mapping has
	marker := b.thread.ring.GetSQE()
	marker.PrepNop()
	marker.Flags, marker.UserData = ring.IOSQE_CQE_SKIP_SUCCESS, ^uint64(0)
	b.next = 1 + slices.IndexFunc(b.entries, func(e ring.SQE) bool { return e.UserData == ^uint64(0) })
	if err := b.thread.ring.Submit(); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) Handle(req *Request)          { b.handled = append(b.handled, req.Tag()) }
func (b *bench) Done(req *Request, res int32) { req.CompleteErrno(min(res, 0)) }

// command is a command from a queue to the driver.
type command struct {
	op     uint32
	flags  uint8
	kind   uint64
	tag    uint16
	result int32
	addr   uint64 // address in the command
	auto   uint64 // address in the entry
}

// commands returns the commands that the queue has sent since the last call.
func (b *bench) commands() []command {
	b.t.Helper()
	var list []command
	for range len(b.entries) - b.thread.ring.SQSpace() {
		sqe := &b.entries[b.next%len(b.entries)]
		b.next++
		if sqe.Opcode != ring.IORING_OP_URING_CMD {
			continue
		}
		cmd := (*uapi.IOCmd)(sqe.Payload())
		if cmd.QID != b.id || sqe.Fd != int32(b.dev.charFD) || uint16(sqe.UserData>>16) != b.slot || uint16(sqe.UserData) != cmd.Tag {
			b.t.Errorf("a command of another queue or tag: %+v", *cmd)
		}
		list = append(list, command{
			op: uint32(sqe.Off), flags: sqe.Flags, kind: sqe.UserData >> 32,
			tag: cmd.Tag, result: cmd.Result, addr: cmd.Addr, auto: sqe.Addr,
		})
	}
	if err := b.thread.ring.Submit(); err != nil {
		b.t.Fatal(err)
	}
	b.thread.ring.CQAdvance(b.thread.ring.CQReady()) // drops the answers of /dev/null
	return list
}

// deliver plays the driver, and delivers a request.
func (b *bench) deliver(tag int, op Op, flags Flags) error {
	b.descs[tag] = uapi.IODesc{OpFlags: uint32(op) | uint32(flags), NrSectors: 8, StartSector: 80}
	return b.complete(kindFetch, &b.reqs[tag], uapi.UBLK_IO_RES_OK)
}

func (b *bench) wantCommands(want ...command) {
	b.t.Helper()
	if got := b.commands(); !slices.Equal(got, want) {
		b.t.Errorf("the driver was told\n%+v, want\n%+v", got, want)
	}
}
