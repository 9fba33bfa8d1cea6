package apart

import (
	"context"
	"errors"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/loop/serving"
)

// runChild runs the process without a sandbox, as a goroutine, and returns its result.
func runChild(t *testing.T, p *Process, s socket) (*child, <-chan error) {
	t.Helper()
	c := newChild(s, Hooks{Queues: func(int) error { return nil }, Answered: func() {}}, nil)
	over := make(chan error, 1)
	receiving(t, p, s, func() { over <- c.receiveAll() })
	return c, over
}

// The process answers a request about a device that it does not have, and a work that it cannot do, with errors. It
// closes their descriptors, and goes on. It ends when the server has no more requests.
func TestProcessRefuses(t *testing.T) {
	p, its := pair(t)
	_, over := runChild(t, p, its)
	receiving(t, p, its, p.watch)
	d := p.Device()
	for name, refused := range map[string]struct {
		ask  func(fd int) error
		want error
	}{
		"hold": {func(fd int) error {
			_, err := d.Ask(context.Background(), &serving.Request{Op: serving.Hold, FDs: []int{fd}})
			return err
		}, unix.ENODEV},
		"work": {func(fd int) error {
			_, err := d.Serve(&serving.Work{File: &serving.File{}, FDs: []int{fd}})
			return err
		}, unix.EBADMSG},
	} {
		ours, theirs, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := refused.ask(int(theirs.Fd())); !errors.Is(err, refused.want) {
			t.Errorf("%s: %v, want %v", name, err, refused.want)
		}
		_ = theirs.Close()
		// The pipe has an end when the process has closed its copy.
		if err := ours.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := ours.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: the descriptor stays open: %v", name, err)
		}
		_ = ours.Close()
	}
	p.finish()
	if err := <-over; err != nil {
		t.Errorf("the process ends with %v", err)
	}
}

// A work whose queues and CPUs differ in number leaves no descriptor open in the process.
func TestWorkWithoutCPUs(t *testing.T) {
	p, _ := bothEnds(t)
	theirs, isClosed := watched(t)
	fd := int(theirs.Fd())
	w := &serving.Work{File: &serving.File{}, FDs: []int{fd, fd}}
	w.Queues.Info.Queues = 1
	if _, err := p.Device().Serve(w); !errors.Is(err, unix.EINVAL) {
		t.Errorf("error %v, want EINVAL", err)
	}
	isClosed()
}

// The process prepares for all of its queues before it serves more. Those of a device that it does not serve do not
// count.
func TestQueuesOfTheProcess(t *testing.T) {
	_, its := pair(t)
	var got []int
	c := newChild(its, Hooks{Queues: func(n int) error { got = append(got, n); return unix.EAGAIN }}, nil)
	c.addQueues(2)
	for _, queues := range []uint16{3, 5} {
		w := &serving.Work{File: &serving.File{}}
		w.Queues.Info.Queues = queues
		if err := c.serve(t.Context(), &request{Work: w}); !errors.Is(err, unix.EAGAIN) {
			t.Errorf("error %v, want EAGAIN", err)
		}
	}
	if !slices.Equal(got, []int{5, 7}) {
		t.Errorf("the process prepares for %v queues, want 5 and 7", got)
	}
}

// The process ends, and tells the server why, when a thread of several devices fails.
func TestProcessFails(t *testing.T) {
	p, its := pair(t)
	c, _ := runChild(t, p, its)
	for range 2 {
		c.fail(unix.EXFULL)
	}
	if err := p.hear(); !errors.Is(err, unix.EXFULL) {
		t.Errorf("the server hears %v", err)
	}
	if err := <-c.over; !errors.Is(err, unix.EXFULL) {
		t.Errorf("the process ends with %v", err)
	}
}

// A process that reads no requests is killed. The server does not wait for it, however many requests
// there are.
func TestProcessDoesNotRead(t *testing.T) {
	p, _ := pair(t)
	limit, err := unix.GetsockoptTimeval(p.socket.fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO)
	if err != nil || time.Duration(limit.Nano()) != sendTimeout {
		t.Fatalf("a send waits for %v, error %v", limit, err)
	}
	if err := p.socket.limitSends(time.Millisecond); err != nil {
		t.Fatal(err)
	}
	const messages = 10_000 // more than the sockets hold
	for i := 0; err == nil && i < messages; i++ {
		err = p.send(request{head: head{Settle: true}})
	}
	if !errors.Is(err, unix.ETIMEDOUT) {
		t.Errorf("error %v, want ETIMEDOUT", err)
	}
	if fake, ok := p.sandbox.(*fakeSandbox); !ok || fake.kills.Load() != 1 {
		t.Errorf("it was not killed once: %+v", p.sandbox)
	}
}

// Many answers at once take one thread, while the server does not read.
func TestAnswersAtOnce(t *testing.T) {
	const answers = 100
	ours, theirs, err := socketPair()
	if err != nil {
		t.Fatal(err)
	}
	its := socket{int(theirs.Fd())}
	c := newChild(its, Hooks{Answered: func() {}}, nil)
	if err := unix.SetNonblock(its.fd, true); err != nil {
		t.Fatal(err)
	}
	for err == nil { // until the socket is full
		err = its.sendReport(report{})
	}
	if err := unix.SetNonblock(its.fd, false); err != nil {
		t.Fatal(err)
	}
	var sent sync.WaitGroup
	for id := range uint64(answers) {
		sent.Go(func() { c.answer(&request{head: head{ID: id + 1}}, serving.Answer{}, nil) })
	}
	sending, waiting := 0, 0
	for over := time.Now().Add(20 * time.Second); sending+waiting < answers && time.Now().Before(over); runtime.Gosched() {
		sending, waiting = answering()
	}
	if sending != 1 || waiting != answers-1 {
		t.Errorf("%d goroutines send, and %d wait", sending, waiting)
	}
	for got := 0; got < answers; {
		r, err := ours.receiveReport(make([]byte, maxReport))
		if err != nil {
			t.Fatal(err)
		}
		if r.ID != 0 {
			got++
		}
	}
	sent.Wait()
	ours.close()
	_ = theirs.Close()
}

// answering returns the numbers of goroutines in child.answer that are in a call of the kernel, and that wait for a lock.
func answering() (sending, waiting int) {
	stacks := make([]byte, 4<<20)
	for g := range strings.SplitSeq(string(stacks[:runtime.Stack(stacks, true)]), "\n\n") {
		state, stack, _ := strings.Cut(g, "\n")
		switch {
		case !strings.Contains(stack, ".(*child).answer("):
		case strings.Contains(state, "[syscall"):
			sending++
		case strings.Contains(state, "[sync.Mutex.Lock"):
			waiting++
		}
	}
	return sending, waiting
}
