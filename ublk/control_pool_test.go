package ublk

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk/uapi"
)

// slowTransport does not answer a STOP_DEV before the test releases it.
type slowTransport struct {
	stopping chan struct{} // receives a value when a command comes
	release  chan error    // has the command's error
	closed   *atomic.Int32
}

func (t *slowTransport) Do(cmd Command) error {
	if cmd.Op == uapi.UBLK_U_CMD_STOP_DEV {
		t.stopping <- struct{}{}
		return <-t.release
	}
	return unix.ENODEV
}

func (t *slowTransport) Close() error {
	t.closed.Add(1)
	return nil
}

// newSlowControl returns a control whose transports are all the same one, and counts how many
// were opened and closed.
func newSlowControl() (c *Control, t *slowTransport, opened, closed *atomic.Int32) {
	opened, closed = &atomic.Int32{}, &atomic.Int32{}
	t = &slowTransport{make(chan struct{}), make(chan error), closed}
	open := func() (Transport, error) {
		opened.Add(1)
		return t, nil
	}
	return newControl(t, open, 2), t, opened, closed
}

func TestSlowCommandKeepsNobodyWaiting(t *testing.T) {
	c, slow, opened, closed := newSlowControl()
	done := make(chan error)
	go func() { done <- c.Stop(1) }()
	<-slow.stopping
	for range 3 {
		if _, err := c.Info(2); !errors.Is(err, unix.ENODEV) {
			t.Fatalf("beside a slow command: error %v, want ENODEV", err)
		}
	}
	slow.release <- nil
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if opened.Load() != 1 || closed.Load() != 1 {
		t.Errorf("%d transports were opened, %d closed, want 1 and 1", opened.Load(), closed.Load())
	}
	if err := c.Close(); err != nil || closed.Load() != 2 {
		t.Errorf("Close: error %v, %d transports closed, want 2", err, closed.Load())
	}
}

func TestCloseWaitsForCommands(t *testing.T) {
	c, slow, _, closed := newSlowControl()
	done := make(chan error)
	go func() { done <- c.Stop(1) }()
	<-slow.stopping
	ended := make(chan error)
	go func() { ended <- c.Close() }()
	slow.release <- nil
	if err := errors.Join(<-done, <-ended); err != nil {
		t.Fatal(err)
	}
	if closed.Load() != 1 {
		t.Errorf("%d transports closed, want 1", closed.Load())
	}
	if _, err := c.Info(2); !errors.Is(err, ErrClosed) {
		t.Errorf("error %v, want ErrClosed", err)
	}
}

func TestHungCommandsAreLimited(t *testing.T) {
	c, slow, opened, _ := newSlowControl()
	for range 2 {
		if _, err := c.Info(1); !errors.Is(err, unix.ENODEV) {
			t.Fatalf("before as many hang as may: error %v, want ENODEV", err)
		}
		done := make(chan error)
		go func() { done <- c.Stop(1) }()
		<-slow.stopping
		slow.release <- fmt.Errorf("stop: %w", ErrControlHung)
		if err := <-done; !errors.Is(err, ErrControlHung) {
			t.Fatalf("error %v, want ErrControlHung", err)
		}
	}
	if _, err := c.Info(1); !errors.Is(err, ErrControlHung) {
		t.Fatalf("after as many hang as may: error %v, want ErrControlHung", err)
	}
	if opened.Load() != 1 {
		t.Errorf("%d transports were opened, want 1", opened.Load())
	}
}

// waitingCommand returns channels for the errors of two commands: a STOP_DEV that has the only
// transport, and a command that has failed to open another.
func waitingCommand(slow *slowTransport) (stopped, told chan error) {
	tried := make(chan struct{}, 8)
	c := newControl(slow, func() (Transport, error) {
		tried <- struct{}{}
		return nil, unix.EMFILE
	}, 2)
	stopped, told = make(chan error), make(chan error)
	go func() { stopped <- c.Stop(1) }()
	<-slow.stopping
	go func() {
		_, err := c.Info(2)
		told <- err
	}()
	<-tried
	return stopped, told
}

// If no transport can be opened, a command waits for one that is in use, and fails if there is
// none.
func TestCommandWaitsForATransport(t *testing.T) {
	for name, tt := range map[string]struct{ end, want error }{
		"which comes free": {nil, unix.ENODEV}, // the device's answer
		"which hangs":      {ErrControlHung, unix.EMFILE},
	} {
		t.Run(name, func(t *testing.T) {
			slow := &slowTransport{make(chan struct{}), make(chan error), &atomic.Int32{}}
			stopped, told := waitingCommand(slow)
			slow.release <- tt.end
			if err := <-stopped; !errors.Is(err, tt.end) {
				t.Errorf("the first command: error %v, want %v", err, tt.end)
			}
			if err := <-told; !errors.Is(err, tt.want) {
				t.Errorf("the one that waits: error %v, want %v", err, tt.want)
			}
		})
	}
}
