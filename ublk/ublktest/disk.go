package ublktest

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ring"
	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/uapi"
)

// Disk is a device without a driver, in copy mode: a target serves it on a
// queue's thread with a real ring, and a test sends the requests.
//
// The queue's commands go to /dev/null, which answers each at once with 0: the
// queue takes that for another request. A Disk holds that request until the test
// sends one. It sees every entry of the target's handler before the kernel does,
// and the result in every commit.
type Disk struct {
	t      testing.TB
	dev    *ublk.Device
	char   *charFake
	sq     *submissions // the queue's thread's until that has ended
	tags   []*tag
	idle   chan *tag
	broken bool                  // its end is an error
	fault  atomic.Pointer[error] // the first thing that must not happen
}

// Request is what a test sends.
type Request struct {
	Op          ublk.Op
	Flags       ublk.Flags
	StartSector uint64 // 512 bytes each
	Sectors     uint32
	Data        []byte // the bytes of a write

	// Answers are the results of the handler's operations, in order. An operation
	// that has an answer is not carried out.
	Answers []int32
	// Ended is called when an operation has ended, before the handler is told.
	Ended func(result int32)
}

// Reply is the end of a request.
type Reply struct {
	Result  int32      // in the commit: the bytes of a read or write, 0, or a negated errno
	Data    []byte     // the bytes of a read that succeeded
	Entries []ring.SQE // what the handler asked of the ring, in order
	Linked  bool       // the kernel carried out the commit without a turn of the queue
}

// waitLimit bounds the wait for what happens at once or never.
const waitLimit = 20 * time.Second

// NewDisk makes a device with a queue of a depth, and has a target serve it until
// the end of the test.
func NewDisk(t testing.TB, depth int, target ublk.Target) *Disk {
	t.Helper()
	needRing(t)
	d := &Disk{t: t, idle: make(chan *tag, depth), char: &charFake{Fake: Fake{Offers: uapi.UBLK_F_CMD_IOCTL_ENCODE}}}
	for range depth {
		tag, err := newTag()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(tag.close)
		d.tags = append(d.tags, tag)
		d.idle <- tag
	}
	var err error
	d.dev, err = ublk.NewControl(d.char).Add(ublk.Options{Queues: 1, Depth: depth, Mode: ublk.BufferCopy})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.close)
	if err := d.dev.Start(&recorded{d, target}); err != nil {
		t.Fatal(err)
	}
	return d
}

// needRing skips a test where the kernel has no io_uring, or forbids it.
func needRing(t testing.TB) {
	t.Helper()
	r, err := ring.New(ring.Options{})
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
		t.Skipf("no io_uring here: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
}

func (d *Disk) close() {
	if err := d.dev.Leave(); err != nil {
		d.t.Errorf("leave: %v", err)
	}
	if err := d.dev.Err(); err != nil && !errors.Is(err, ublk.ErrKilled) && !d.broken {
		d.t.Errorf("the device ended with %v", err)
	}
	if err := d.fault.Load(); err != nil {
		d.t.Error(*err)
	}
	if d.sq != nil {
		d.sq.close()
	}
}

// Stats returns those of the device.
func (d *Disk) Stats() ublk.Stats { return d.dev.Stats() }

// Do sends a request and waits for its end.
func (d *Disk) Do(req Request) Reply {
	d.t.Helper()
	return d.Begin(req)()
}

// Begin sends a request, and returns a function that waits for its end.
func (d *Disk) Begin(req Request) (wait func() Reply) {
	d.t.Helper()
	tag := await(d, d.idle, "no tag is free")
	if err := tag.begin(req); err != nil {
		d.t.Fatal(err)
	}
	return func() Reply {
		d.t.Helper()
		what := fmt.Sprintf("%v of %d sectors at %d does not end", req.Op, req.Sectors, req.StartSector)
		reply := await(d, tag.replies, what)
		d.idle <- tag
		return reply
	}
}

// Break has the driver refuse commands, and sends a request whose commit it so
// refuses. It returns why the device has ended then.
func (d *Disk) Break(req Request) error {
	d.t.Helper()
	if err := d.char.refuseCommands(); err != nil {
		d.t.Fatal(err)
	}
	d.broken = true
	if err := await(d, d.idle, "no tag is free").begin(req); err != nil {
		d.t.Fatal(err)
	}
	select {
	case <-d.dev.Done():
	case <-time.After(waitLimit):
		d.t.Fatal("a device whose commands are refused goes on")
	}
	return d.dev.Err()
}

// await receives from a channel, or fails the test with what its silence means.
func await[T any](d *Disk, c <-chan T, silence string) T {
	d.t.Helper()
	select {
	case v := <-c:
		return v
	case <-d.dev.Done():
		d.t.Fatalf("%s: the device has ended: %v", silence, d.dev.Err())
	case <-time.After(waitLimit):
		if err := d.fault.Load(); err != nil {
			d.t.Error(*err)
		}
		d.t.Fatal(silence)
	}
	panic("unreachable")
}

// fail fails the test at its end: the queue's thread cannot do that itself.
func (d *Disk) fail(format string, args ...any) {
	err := fmt.Errorf(format, args...)
	d.fault.CompareAndSwap(nil, &err)
}
