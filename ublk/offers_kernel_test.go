package ublk_test

import (
	"errors"
	"testing"

	"github.com/ublk-loop/ublk-loop/ring"
	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/uapi"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// Each kernel of the matrix offers exactly the known features. If it offered less, tests would be
// skipped. If it offered more, no test would try that.
func TestKernelOffers(t *testing.T) {
	ctl := ublktest.Kernel(t, ublktest.EveryKernel)
	features, err := ctl.Features()
	if err != nil {
		t.Fatal(err)
	}
	known, release, ok := ublktest.Pinned(t)
	if ok && features != known.Features {
		t.Errorf("Linux %s offers %v, want %v", release, features, known.Features)
	}
	for mode, ability := range map[ublk.BufferMode]ublktest.Ability{
		ublk.BufferRegister: ublktest.ZeroCopy, ublk.BufferAutoRegister: ublktest.AutoRegister,
	} {
		ublktest.CheckAbility(t, ability, hasMode(t, ctl, mode))
	}
	if !hasMode(t, ctl, ublk.BufferCopy) {
		t.Error("a kernel without copy mode")
	}
	best := addDevice(t, ctl, ublk.Options{Mode: ublk.BufferFastest}).Mode()
	ublktest.CheckAbility(t, ublktest.AutoRegister, best == ublk.BufferAutoRegister)
	ublktest.CheckAbility(t, ublktest.ZeroCopy, best.ZeroCopy())
	r, err := ring.New(ring.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	ublktest.CheckAbility(t, ublktest.LinkedCommands, r.Features()&ring.IORING_FEAT_NO_IOWAIT != 0)
	ublktest.CheckAbility(t, ublktest.UpdateSize, features.Has(uapi.UBLK_F_UPDATE_SIZE))
}

// hasMode reports whether the kernel has a buffer mode, by adding a device.
func hasMode(t *testing.T, ctl *ublk.Control, mode ublk.BufferMode) bool {
	t.Helper()
	dev, err := ctl.Add(ublk.Options{Mode: mode})
	if errors.Is(err, ublk.ErrNotSupported) {
		return false
	}
	if err != nil {
		t.Fatal(err)
	}
	if dev.Mode() != mode {
		t.Errorf("a device of mode %v has %v", mode, dev.Mode())
	}
	if err := dev.Close(); err != nil {
		t.Fatal(err)
	}
	return true
}
