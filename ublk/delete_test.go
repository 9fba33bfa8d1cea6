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
