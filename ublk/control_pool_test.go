package ublk

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

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
	return newControl(t, open), t, opened, closed
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
	if opened.Load() != 1 || closed.Load() != 0 {
		t.Errorf("%d transports were opened, %d closed, want 1 and 0", opened.Load(), closed.Load())
	}
	if err := c.Close(); err != nil || closed.Load() != 2 {
		t.Errorf("Close: error %v, %d transports closed, want 2", err, closed.Load())
	}
}

// Commands that run side by side use the transports of earlier ones, but not all of them are kept.
func TestTransportsAreReused(t *testing.T) {
	c, slow, opened, closed := newSlowControl()
	atOnce := func(n int) {
		t.Helper()
		done := make(chan error, n)
		for range n {
			go func() { done <- c.Stop(1) }() // received below
			<-slow.stopping
		}
		for range n {
			slow.release <- nil
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
	}
	const many = maxIdle + 3
	for range 2 {
		atOnce(maxIdle)
		if opened.Load() != maxIdle-1 || closed.Load() != 0 {
			t.Errorf("%d transports were opened, %d closed, want %d and 0", opened.Load(), closed.Load(), maxIdle-1)
		}
	}
	atOnce(many)
	if opened.Load() != many-1 || closed.Load() != many-maxIdle {
		t.Errorf("%d transports were opened, %d closed, want %d and %d", opened.Load(), closed.Load(), many-1, many-maxIdle)
	}
	if err := c.Close(); err != nil || closed.Load() != many {
		t.Errorf("Close: error %v, %d transports closed, want %d", err, closed.Load(), many)
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

// Close does not wait without limit for a command that hangs. When the command ends later,
// its transport is closed.
func TestCloseGivesUpOnCommands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, slow, _, closed := newSlowControl()
		done := make(chan error)
		go func() { done <- c.Stop(1) }()
		<-slow.stopping
		begun := time.Now()
		if err := c.Close(); !errors.Is(err, ErrControlHung) {
			t.Errorf("error %v, want ErrControlHung", err)
		}
		if err := c.Close(); err != nil {
			t.Errorf("second call: %v", err)
		}
		if took := time.Since(begun); took != closeTimeout {
			t.Errorf("gave up after %v, want %v", took, closeTimeout)
		}
		slow.release <- nil
		if err := <-done; err != nil || closed.Load() != 1 {
			t.Errorf("the command: error %v, %d transports closed, want 1", err, closed.Load())
		}
	})
}

// hungTransport gives up each command for a device below 100, and each command that adds
// one. Such a command ends when the test ends it.
type hungTransport struct{ end chan struct{} }

func (t *hungTransport) Do(cmd Command) error {
	if cmd.DevID < 100 || cmd.DevID == anyDevice {
		return fmt.Errorf("device %d: %w", cmd.DevID, ErrControlHung)
	}
	return unix.ENODEV
}

func (t *hungTransport) Close() error {
	<-t.end
	return nil
}

// A device whose command has been given up gets no other command until that one ends. Other
// devices get theirs, however many hang.
func TestHungCommandsAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		end, opened := make(chan struct{}), 0
		c := newControl(&hungTransport{end}, func() (Transport, error) {
			opened++
			return &hungTransport{end}, nil
		})
		for id := range uint32(2 * maxHung) {
			for range 2 {
				if _, err := c.Params(id); !errors.Is(err, ErrControlHung) {
					t.Fatalf("error %v, want ErrControlHung", err)
				}
			}
			if _, err := c.Params(100); !errors.Is(err, unix.ENODEV) {
				t.Fatalf("while %d devices hang: error %v, want ENODEV", id, err)
			}
		}
		for range maxHung + 5 {
			if _, err := c.Add(Options{}); !errors.Is(err, ErrControlHung) {
				t.Fatalf("add: error %v, want ErrControlHung", err)
			}
		}
		if want := 3*maxHung - 1; opened != want { // the control begins with one
			t.Errorf("%d transports were opened, want %d", opened, want)
		}
		close(end)
		synctest.Wait()
		if _, err := c.Params(1); !errors.Is(err, ErrControlHung) || opened != 3*maxHung {
			t.Errorf("after the end of all: error %v, %d transports opened, want %d", err, opened, 3*maxHung)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
}

// waitingCommand returns channels for the errors of two commands: a STOP_DEV that has the only
// transport, and a command that has failed to open another.
func waitingCommand(slow *slowTransport) (stopped, told chan error) {
	tried := make(chan struct{}, 8)
	c := newControl(slow, func() (Transport, error) {
		tried <- struct{}{}
		return nil, unix.EMFILE
	})
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
