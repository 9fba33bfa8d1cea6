package loop

import (
	"errors"
	"os"
	"testing"

	"github.com/ublk-loop/ublk-loop/ublk"
)

// A server that was shut down makes no device, and closes the key of a refused one.
func TestServerAfterShutdown(t *testing.T) {
	s := NewServer(nil, ServerOptions{})
	if err := s.Shutdown(); err != nil {
		t.Fatal(err)
	}
	key := secretOf(t, testKey)
	if _, err := s.Add(openPath(t, os.Args[0]), Config{Key: key}); !errors.Is(err, ublk.ErrClosed) || key.Bytes() != nil {
		t.Errorf("add: error %v, key closed: %v", err, key.Bytes() == nil)
	}
	key = secretOf(t, testKey)
	if _, err := s.Recover(0, openPath(t, os.Args[0]), RecoverOptions{Key: key}); !errors.Is(err, ublk.ErrClosed) || key.Bytes() != nil {
		t.Errorf("recover: error %v, key closed: %v", err, key.Bytes() == nil)
	}
}

// Without StopUnused, a device counts as in use.
func TestServerWithoutStopUnused(t *testing.T) {
	s := NewServer(nil, ServerOptions{})
	if err := s.opts.StopUnused(nil, TaggedID{ID: 3}); !errors.Is(err, ErrInUse) {
		t.Errorf("error %v, want ErrInUse", err)
	}
	s.opts.Checked()
}

// The end of a device does not affect the next device with its id.
func TestServerDropsNoOther(t *testing.T) {
	s := NewServer(nil, ServerOptions{})
	was, is := &served{}, &served{}
	s.devices[3] = is
	s.drop(was, 3)
	if s.devices[3] != is {
		t.Error("the next device with the id is gone")
	}
	s.drop(is, 3)
	if s.Len() != 0 {
		t.Error("it is still there")
	}
}
