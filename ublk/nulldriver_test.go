package ublk

import (
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ring"
	"github.com/ublk-loop/ublk-loop/ublk/uapi"
)

const nullRequestBytes = 4096

// nullQueue is a queue without a driver.
type nullQueue struct {
	*Queue
	ends chan error
}

// kill ends the queue and returns why it ended.
func (q *nullQueue) kill() error {
	q.thread.kill()
	err := <-q.ends
	q.freeBuffers()
	return err
}

// serveNull serves a queue without a driver, in copy mode. Its commands go to /dev/null, which
// answers each at once (uring_cmd_null in drivers/char/mem.c, Linux 6.2). For the queue, the
// answer to a commit is the tag's next request. Each request is a read of nullRequestBytes
// unless the test changes the descriptors.
func serveNull(t testing.TB, depth int, target Target) *nullQueue {
	t.Helper()
	r, err := ring.New(ring.Options{})
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
		t.Skipf("no io_uring here: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	_ = r.Close()
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ends := make(chan error, 1)
	q := &nullQueue{ends: ends, Queue: &Queue{
		dev:   &Device{charFD: null, info: Info{MaxIOBytes: 4 * nullRequestBytes}},
		depth: depth, counters: newCounters(1)[0], ended: ends,
	}}
	q.dev.counters = []*counters{q.counters}
	if q.thread, q.slot, err = ownThreads().take(threadKind{depth: depth, files: defaultFiles}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		q.thread.kill()
		<-q.thread.ended
		_ = unix.Close(null)
	})
	if err := q.thread.do(func() error { return q.setUpNull(target) }); err != nil {
		t.Fatal(err)
	}
	return q
}

// setUpNull is setUp and fetchAll with descriptors of the test.
func (q *Queue) setUpNull(target Target) error {
	q.thread.queues[q.slot] = q
	var err error
	if q.bufs, err = newBuffers(q.mode, int(q.slot), q.depth, int(q.dev.info.MaxIOBytes), ""); err != nil {
		return err
	}
	if err := q.bufs.register(q.thread.ring, here); err != nil {
		return err
	}
	q.descs = make([]uapi.IODesc, q.depth)
	q.newRequests()
	for tag := range q.descs {
		q.descs[tag] = uapi.IODesc{OpFlags: uapi.UBLK_IO_OP_READ, NrSectors: nullRequestBytes >> sectorShift}
	}
	if err := q.setUpHandler(target); err != nil {
		return err
	}
	return q.fetchAll()
}

// within receives a value, and fails the test if none comes in time.
func within[T any](t testing.TB, c <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(20 * time.Second):
		t.Fatalf("%s: not in time", what)
	}
	panic("unreachable")
}
