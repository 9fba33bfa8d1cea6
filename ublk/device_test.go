package ublk

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk/uapi"
)

// stubbornTransport refuses to stop a device while mayStop is false.
type stubbornTransport struct {
	mayStop  bool
	stopped  func()
	commands []uint32
}

func (s *stubbornTransport) Do(cmd Command) error {
	s.commands = append(s.commands, cmd.Op)
	if cmd.Op != uapi.UBLK_U_CMD_STOP_DEV {
		return nil
	}
	if !s.mayStop {
		return unix.EINTR
	}
	s.stopped()
	return nil
}

func (s *stubbornTransport) Close() error { return nil }

// If the driver does not stop a device on threads with others, the device stays served. It is
// not deleted, and Close may be called again.
func TestCloseOfWhatDoesNotStop(t *testing.T) {
	driver := &stubbornTransport{}
	d := newDevice(NewControl(driver), Info{ID: 5, Queues: 1}, RecoverOptions{Threads: NewThreads(0, nil)})
	d.started = true // the test ends its queues when it is stopped
	driver.stopped = func() { close(d.done) }
	for range 2 {
		if err := d.Close(); !errors.Is(err, ErrServed) || !errors.Is(err, unix.EINTR) {
			t.Errorf("error %v, want ErrServed and EINTR", err)
		} else if want := "still served by this process: "; !strings.HasPrefix(err.Error(), want) {
			t.Errorf("error %q does not begin with %q", err, want)
		}
	}
	if slices.Contains(driver.commands, uapi.UBLK_U_CMD_DEL_DEV) {
		t.Error("a device that is served is deleted")
	}
	driver.mayStop = true
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if want := []uint32{uapi.UBLK_U_CMD_STOP_DEV, uapi.UBLK_U_CMD_STOP_DEV, uapi.UBLK_U_CMD_STOP_DEV, uapi.UBLK_U_CMD_DEL_DEV}; !slices.Equal(driver.commands, want) {
		t.Errorf("commands %#x, want %#x", driver.commands, want)
	}
}

// A device starts once, and Open fails after that.
func TestStartOnce(t *testing.T) {
	d := newDevice(NewControl(&stubbornTransport{}), Info{ID: 5}, RecoverOptions{})
	var err error
	if d.charFD, err = unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
		t.Fatal(err)
	}
	if err := d.Start(nil); err != nil {
		t.Fatal(err)
	}
	<-d.Done() // a device without queues ends at once
	if err := d.Start(nil); !errors.Is(err, unix.EBUSY) {
		t.Errorf("start again: error %v, want EBUSY", err)
	}
	if err := d.Open(); !errors.Is(err, unix.EBUSY) {
		t.Errorf("open after the start: error %v, want EBUSY", err)
	}
}
