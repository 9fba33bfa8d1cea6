package ublk_test

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/uapi"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// Close and Delete return the error of a failed deletion. Close succeeds if the device is gone,
// or goes when its last user closes it.
func TestDeleteFails(t *testing.T) {
	for errno, want := range map[unix.Errno]struct{ closed, deleted error }{
		unix.ENODEV: {nil, unix.ENODEV},
		unix.EINTR:  {nil, ublk.ErrLingers},
		unix.EPERM:  {unix.EPERM, unix.EPERM},
		unix.EBUSY:  {unix.EBUSY, unix.EBUSY},
	} {
		fake := &ublktest.Fake{Offers: offersAuto, Fail: map[uint32]error{uapi.UBLK_U_CMD_DEL_DEV: errno}}
		ctl := ublk.NewControl(fake)
		dev, err := ctl.Add(ublk.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if err := ctl.Delete(dev.Info().ID); !errors.Is(err, want.deleted) {
			t.Errorf("%v: delete: error %v, want %v", errno, err, want.deleted)
		}
		if err := dev.Close(); !errors.Is(err, want.closed) || want.closed == nil && err != nil {
			t.Errorf("%v: close: error %v, want %v", errno, err, want.closed)
		}
	}
}

// Close does not delete another device that has the id, nor one whose tag the driver does not tell.
func TestCloseDeletesOwn(t *testing.T) {
	for _, tt := range []struct {
		name string
		tag  uint64 // of the device that has the id
		told error  // instead of the tag
		left int
	}{
		{"the same device", 7, nil, 0},
		{"another device", 8, nil, 1},
		{"an unknown device", 7, unix.EPERM, 1},
	} {
		fake := &ublktest.Fake{Offers: offersAuto}
		ctl := ublk.NewControl(fake)
		dev, err := ctl.Add(ublk.Options{Tag: 7})
		if err != nil {
			t.Fatal(err)
		}
		id := dev.Info().ID
		if err := ctl.Delete(id); err != nil {
			t.Fatal(err)
		}
		if _, err := ctl.Add(ublk.Options{ID: &id, Tag: tt.tag}); err != nil {
			t.Fatal(err)
		}
		fake.Fail = map[uint32]error{uapi.UBLK_U_CMD_GET_DEV_INFO: tt.told}
		if err := dev.Close(); !errors.Is(err, tt.told) {
			t.Errorf("%s: error %v, want %v", tt.name, err, tt.told)
		}
		if n := len(fake.IDs()); n != tt.left {
			t.Errorf("%s: %d devices are left, want %d", tt.name, n, tt.left)
		}
	}
}
