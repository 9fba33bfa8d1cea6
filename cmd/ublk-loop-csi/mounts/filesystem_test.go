package mounts

import (
	"context"
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// A file system whose device does not answer is not waited for longer than the caller does. If it is frozen
// afterwards, it is thawed.
func TestFreezeIsGivenUp(t *testing.T) {
	goOn, thawed := make(chan struct{}), make(chan struct{})
	ctx, giveUp := context.WithCancel(t.Context())
	begun := make(chan struct{})
	freeze := func() error {
		close(begun)
		<-goOn
		return nil
	}
	go func() { // ends at once
		<-begun
		giveUp()
	}()
	if err := freezeBy(ctx, freeze, func() { close(thawed) }); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	close(goOn)
	<-thawed
}

// A file system that was frozen in time, or could not be frozen, is not thawed.
func TestFreeze(t *testing.T) {
	for _, want := range []error{nil, unix.EBUSY} {
		err := freezeBy(t.Context(), func() error { return want }, func() { t.Error("thawed") })
		if !errors.Is(err, want) {
			t.Errorf("error %v, want %v", err, want)
		}
	}
}
