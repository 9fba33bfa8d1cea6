package loop

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/uapi"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

func TestOnCrash(t *testing.T) {
	const requeue = ublk.Features(uapi.UBLK_F_USER_RECOVERY)
	const reissue = requeue | uapi.UBLK_F_USER_RECOVERY_REISSUE
	for _, tt := range []struct {
		wish OnCrash
		want ublk.Features
		is   OnCrash
	}{
		{"", 0, CrashFail},
		{CrashFail, 0, CrashFail},
		{CrashRequeue, requeue, CrashRequeue},
		{CrashReissue, reissue, CrashReissue},
	} {
		cfg := Config{OnCrash: tt.wish}
		got, err := cfg.crashFeatures()
		if err != nil || got != tt.want || onCrashOf(got|uapi.UBLK_F_AUTO_BUF_REG) != tt.is {
			t.Errorf("%q: features %v, error %v, which is %q; want %v", tt.wish, got, err, onCrashOf(got), tt.want)
		}
	}
}

// A device without the requested features does not stay.
func TestOnCrashIsNotSilentlyLost(t *testing.T) {
	const reissue = ublk.Features(uapi.UBLK_F_USER_RECOVERY | uapi.UBLK_F_USER_RECOVERY_REISSUE)
	for _, offers := range []ublk.Features{0, uapi.UBLK_F_USER_RECOVERY, reissue} {
		fake := &ublktest.Fake{Offers: offers}
		dev, err := ublk.NewControl(fake).Add(ublk.Options{Features: reissue})
		if err != nil {
			t.Fatal(err)
		}
		err = checkCrashFeatures(dev, reissue)
		if offers == reissue {
			if err != nil || len(fake.IDs()) != 1 {
				t.Errorf("%v: error %v, devices %v", offers, err, fake.IDs())
			}
		} else if !errors.Is(err, ublk.ErrNotSupported) || len(fake.IDs()) != 0 {
			t.Errorf("%v: error %v, devices %v; want ErrNotSupported, and none", offers, err, fake.IDs())
		}
	}
}

func TestOnCrashRefuses(t *testing.T) {
	for _, cfg := range []Config{
		{OnCrash: "restart"},
		{OnCrash: CrashRequeue, Shared: true},
		{OnCrash: CrashReissue, Shared: true},
	} {
		if _, err := cfg.crashFeatures(); !errors.Is(err, unix.EINVAL) {
			t.Errorf("%+v: error %v, want EINVAL", cfg, err)
		}
	}
	for _, cfg := range []Config{
		{OnCrash: CrashFail, Shared: true},
		{OnCrash: CrashReissue, Shared: true, ReadOnly: true}, // has no writes that could be running
	} {
		if _, err := cfg.crashFeatures(); err != nil {
			t.Errorf("%+v: %v", cfg, err)
		}
	}
}
