package apart

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/loop/serving"
)

// runChild runs the process without a sandbox, as a goroutine, and returns its result.
func runChild(t *testing.T, s socket) (*child, <-chan error) {
	t.Helper()
	c := newChild(s, Hooks{Queues: func(int) error { return nil }, Answered: func() {}})
	over := make(chan error, 1)
	go func() { over <- c.receiveAll() }() // ends with the sockets
	return c, over
}

// The process answers a request about a device that it does not have, and a work that it cannot do, with errors. It
// closes their descriptors, and goes on. It ends when the server has no more requests.
func TestProcessRefuses(t *testing.T) {
	p, its := pair(t)
	_, over := runChild(t, its)
	go p.watch() // ends below
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

// The process ends, and tells the server why, when a thread of several devices fails.
func TestProcessFails(t *testing.T) {
	p, its := pair(t)
	c, _ := runChild(t, its)
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
