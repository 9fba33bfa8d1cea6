package ublktest

import (
	"cmp"
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

// Disk is a device without a driver, in copy mode. A target serves it on a queue's thread
// with a real ring, and a test sends the requests.
//
// The queue's commands go to /dev/null, which answers each command at once with 0. The
// queue takes that for another request. A Disk holds that request back until the test
// sends one. It sees every entry of the target's handler before the kernel does, and the
// result in every commit.
type Disk struct {
	t      testing.TB
	dev    *ublk.Device
	char   *charFake
	sq     *submissions // used by the queue's thread until that has ended
	tags   []*tag
	idle   chan *tag
	broken bool                  // the device has to end with an error
	fault  atomic.Pointer[error] // the first violation that was found
}

// Request is a request of a test.
type Request struct {
	Op          ublk.Op
	Flags       ublk.Flags
	StartSector uint64 // in units of 512 bytes
	Sectors     uint32
	Data        []byte // data of a write

	// Answers are the results of the handler's operations, in order. An operation with an
	// answer is not carried out.
	Answers []int32
	// Ended is called when an operation has ended, before the handler gets the result.
	Ended func(result int32)
}

// Reply is the end of a request.
type Reply struct {
	Result  int32      // the committed result: the bytes of a read or write, 0, or a negated errno
	Data    []byte     // data of a successful read
	Entries []ring.SQE // the handler's entries, in order
	Linked  bool       // the kernel carried out the commit without a turn of the queue
}

// waitLimit bounds the wait for an event that comes at once or never.
const waitLimit = 20 * time.Second

// diskMaxIOBytes is the largest request if the options have none. The kernel counts the buffers of all tags as locked memory, also
// for a moment after the end of a device, and many systems limit that to 8 MiB for a user.
const diskMaxIOBytes = 64 << 10

// NewDisk makes a device with one queue, and lets a target serve it until the end of the
// test.
func NewDisk(t testing.TB, depth int, target ublk.Target) *Disk {
	t.Helper()
	return NewDiskWith(t, ublk.Options{Depth: depth}, target)
}

// NewDiskWith is NewDisk with the depth, the files and the parts of options.
func NewDiskWith(t testing.TB, opts ublk.Options, target ublk.Target) *Disk {
	t.Helper()
	needRing(t)
	depth := opts.Depth
	opts.Queues, opts.Mode, opts.MaxIOBytes = 1, ublk.BufferCopy, cmp.Or(opts.MaxIOBytes, diskMaxIOBytes)
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
	d.dev, err = ublk.NewControl(d.char).Add(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.close)
	if err := d.dev.Start(&recorded{d, target}); err != nil {
		t.Fatal(err)
	}
	return d
}

// needRing skips a test if the kernel has no io_uring or forbids it.
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

// Stats returns the counters of the device.
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

// Break makes the driver refuse commands, and sends a request whose commit is refused. It
// returns the error with which the device then ended.
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
		TimedOut(d.t, waitLimit, "the end of a device whose commands are refused")
	}
	return d.dev.Err()
}

// await receives from a channel. If nothing comes, it fails the test with the message
// silence.
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

// fail records a failure, with which the test fails at its end. The queue's thread cannot
// fail the test itself.
func (d *Disk) fail(format string, args ...any) {
	err := fmt.Errorf(format, args...)
	d.fault.CompareAndSwap(nil, &err)
}
