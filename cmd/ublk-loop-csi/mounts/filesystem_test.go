package mounts

import (
	"context"
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// A file system whose device does not answer is not waited for longer than the caller does. If it is frozen
// afterwards, it is thawed, and an error of that is returned.
func TestFreezeIsGivenUp(t *testing.T) {
	for _, tt := range []struct{ freeze, thaw, want error }{
		{nil, unix.EIO, unix.EIO},
		{nil, nil, nil},
		{unix.EBUSY, unix.EIO, nil}, // there is nothing to thaw
	} {
		ctx, giveUp := context.WithCancel(t.Context())
		goOn, undone := make(chan struct{}), make(chan error, 1)
		freeze := func() error {
			giveUp()
			<-goOn
			return tt.freeze
		}
		thaw := func() error { return tt.thaw }
		err := freezeBy(ctx, freeze, thaw, func(undo func() error) { go func() { undone <- undo() }() }) // received below
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%+v: error %v", tt, err)
		}
		select {
		case err := <-undone:
			t.Errorf("%+v: undone before the device has answered: error %v", tt, err)
		default:
		}
		close(goOn)
		if err := <-undone; !errors.Is(err, tt.want) {
			t.Errorf("%+v: undone with error %v", tt, err)
		}
	}
}

// A file system that was frozen in time, or could not be frozen, is not thawed.
func TestFreeze(t *testing.T) {
	for _, want := range []error{nil, unix.EBUSY} {
		thaw := func() error { t.Error("thawed"); return nil }
		err := freezeBy(t.Context(), func() error { return want }, thaw, func(func() error) { t.Error("given up") })
		if !errors.Is(err, want) {
			t.Errorf("error %v, want %v", err, want)
		}
	}
}
