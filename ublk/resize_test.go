package ublk_test

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/uapi"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// described adds a device of 16 sectors.
func described(t *testing.T, fake *ublktest.Fake, features ublk.Features) (*ublk.Control, uint32) {
	t.Helper()
	ctl := ublk.NewControl(fake)
	dev, err := ctl.Add(ublk.Options{Features: features})
	if err != nil {
		t.Fatal(err)
	}
	if err := dev.SetParams(ublk.Params{Size: 8192}); err != nil {
		t.Fatal(err)
	}
	return ctl, dev.Info().ID
}

// sent counts the commands with a number.
func sent(fake *ublktest.Fake, op uint32) int {
	n := 0
	for _, cmd := range fake.Commands() {
		if cmd.Op == op {
			n++
		}
	}
	return n
}

func TestUpdateSize(t *testing.T) {
	fake := &ublktest.Fake{Offers: offersAuto | uapi.UBLK_F_UPDATE_SIZE}
	ctl, id := described(t, fake, 0)
	// Older drivers crash without a disk.
	if err := ctl.UpdateSize(id, 4096); !errors.Is(err, unix.ENODEV) {
		t.Errorf("without a disk: error %v, want ENODEV", err)
	}
	if n := sent(fake, uapi.UBLK_U_CMD_UPDATE_SIZE); n != 0 {
		t.Errorf("without a disk: %d commands were sent", n)
	}
	fake.Set(id, ublk.StateLive, 1)
	if err := ctl.UpdateSize(id, 4096); err != nil {
		t.Fatal(err)
	}
	p, err := ctl.Params(id)
	if err != nil || p.Size != 4096 {
		t.Errorf("%d bytes, error %v; want 4096", p.Size, err)
	}
	if err := ctl.UpdateSize(id, 4097); !errors.Is(err, unix.EINVAL) {
		t.Errorf("a part of a sector: error %v, want EINVAL", err)
	}
	if err := ctl.UpdateSize(id+1, 4096); !errors.Is(err, unix.ENODEV) {
		t.Errorf("without a device: error %v, want ENODEV", err)
	}
}

func TestUpdateSizeFails(t *testing.T) {
	fake := &ublktest.Fake{Offers: offersAuto | uapi.UBLK_F_UPDATE_SIZE}
	ctl, id := described(t, fake, 0)
	fake.Set(id, ublk.StateLive, 1)
	fake.Fail = map[uint32]error{uapi.UBLK_U_CMD_UPDATE_SIZE: unix.EPERM}
	if err := ctl.UpdateSize(id, 4096); !errors.Is(err, unix.EPERM) {
		t.Errorf("error %v, want EPERM", err)
	}
}

func TestUpdateSizeIsNotInOlderDrivers(t *testing.T) {
	fake := &ublktest.Fake{Offers: offersAuto}
	ctl, id := described(t, fake, 0)
	fake.Set(id, ublk.StateLive, 1)
	if err := ctl.UpdateSize(id, 4096); !errors.Is(err, ublk.ErrNotSupported) {
		t.Errorf("error %v, want ErrNotSupported", err)
	}
}
