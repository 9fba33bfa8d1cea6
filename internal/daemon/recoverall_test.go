package daemon

import (
	"errors"
	"os"
	"reflect"
	"testing"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/loop"
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
