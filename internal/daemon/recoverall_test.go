package daemon

import (
	"errors"
	"os"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/loop"
	"github.com/ublk-loop/ublk-loop/transfer"
)

func TestUnrecovered(t *testing.T) {
	devices := []loop.Status{
		{ID: 0, Device: "/dev/ublkb0", State: "quiesced"},
		{ID: 1, Device: "/dev/ublkb1", State: "live", PID: os.Getpid()}, // of the program before this one
		{ID: 2, Device: "/dev/ublkb2", State: "live", PID: 1},           // recovered by another process
		{ID: 3, Device: "/dev/ublkb3", State: "quiesced"},
		{ID: 4, Device: "/dev/ublkb4", State: "dead", Table: "0 8 linear /a 0", Files: []loop.StatusFile{{File: "/a", Device: "1:2", Inode: 3}}},
		{ID: 6, Device: "/dev/ublkb6", State: "quiesced", DiskSequence: 2},
	}
	u := &unrecovered{}
	if got := u.among(devices); got == nil || len(got) > 0 {
		t.Errorf("%+v before any attempt", got)
	}
	for id := range uint32(6) {
		u.note(&loop.Status{ID: id}, errors.New("caf\xe9"))
	}
	u.note(&loop.Status{ID: 3}, nil)
	u.note(&loop.Status{ID: 6, DiskSequence: 1}, errors.New("not the device that has the number now"))
	want := []client.Unrecovered{
		{ID: 0, Device: "/dev/ublkb0", Error: `caf\xe9`},
		{ID: 1, Device: "/dev/ublkb1", Error: `caf\xe9`},
		{ID: 4, Device: "/dev/ublkb4", Error: `caf\xe9`, Files: []client.DeviceFile{{File: "/a", Device: "1:2", Inode: 3}}},
	}
	if got := u.among(devices); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// waitingFor returns a server with a device that it has not taken over.
func waitingFor(t *takeover) *many {
	s := &many{devices: loop.NewServer(nil, loop.ServerOptions{})}
	s.takeovers.byID = map[uint32]*takeover{t.device.ID: t}
	return s
}

// An attempt to take over a device whose file never answers does not keep requests about the device waiting.
func TestHungTakeover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hung := newTakeover(&loop.Status{ID: 7}, had{})
		hung.busy <- struct{}{}
		s := waitingFor(hung)
		key, err := transfer.NewSecret(32)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.giveKey(7, nil, key); !errors.Is(err, unix.EBUSY) {
			t.Errorf("give the key: %v, want EBUSY", err)
		}
		if err := s.removeWaiting(7, nil); !errors.Is(err, unix.EBUSY) {
			t.Errorf("remove: %v, want EBUSY", err)
		}
	})
}

// A device that was taken over while its removal waited is removed as a device of this server.
func TestRemoveTakenOver(t *testing.T) {
	taken := newTakeover(&loop.Status{ID: 7}, had{})
	taken.done = true
	err := waitingFor(taken).removeWaiting(7, nil)
	if !errors.Is(err, unix.ENODEV) || !strings.Contains(err.Error(), "not a device of this server") {
		t.Errorf("error %v, want that of the server", err)
	}
}
