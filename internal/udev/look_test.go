package udev

import (
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// busy returns a function that returns EBUSY before call number until, and nil from then
// on.
func busy(until int, calls *int) func() error {
	return func() error {
		if *calls++; *calls < until {
			return unix.EBUSY
		}
		return nil
	}
}

func never() bool { return false }

// OutlastLook succeeds soon after udev has closed the device.
func TestOutlastLook(t *testing.T) {
	path := filepath.Join(t.TempDir(), "node")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{path, path + ".gone"} { // without a node there are no events
		calls := 0
		if err := OutlastLook(p, busy(5, &calls), never); err != nil || calls != 5 {
			t.Errorf("%s: error %v after %d calls", p, err, calls)
		}
	}
}

// A close ends a long pause, although the device becomes free only some tries after the event.
// Tries after long pauses would take several times longestLookPause.
func TestOutlastLookSeesTheClose(t *testing.T) {
	path := filepath.Join(t.TempDir(), "node")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	const tries = 6
	var closed atomic.Int64
	defer time.AfterFunc(time.Second, func() { // by then the pauses have their maximum
		closed.Store(time.Now().UnixNano())
		_ = f.Close()
	}).Stop()
	after := 0
	remove := func() error {
		if closed.Load() > 0 {
			after++
		}
		if after < tries {
			return unix.EBUSY
		}
		return nil
	}
	if err := OutlastLook(path, remove, never); err != nil {
		t.Fatal(err)
	}
	const limit = (tries - 2) * longestLookPause
	if took := time.Since(time.Unix(0, closed.Load())); took > limit {
		ublktest.TimedOut(t, limit, "the tries after the close, which took %v", took)
	}
}

// OutlastLook does not wait if the device is held for longer, or if try returns another
// error.
func TestOutlastLookDoesNotWait(t *testing.T) {
	calls := 0
	if err := OutlastLook("/nothing", busy(5, &calls), func() bool { return true }); !errors.Is(err, unix.EBUSY) || calls != 1 {
		t.Errorf("held: error %v after %d calls", err, calls)
	}
	calls = 0
	err := OutlastLook("/nothing", func() error { calls++; return unix.ENODEV }, never)
	if !errors.Is(err, unix.ENODEV) || calls != 1 {
		t.Errorf("gone: error %v after %d calls", err, calls)
	}
}

// OutlastLook gives up if the use lasts too long for udev. Until then it tries after pauses, which grow:
// the close of what a try itself has opened does not shorten them.
func TestOutlastLookGivesUp(t *testing.T) {
	path := filepath.Join(t.TempDir(), "node")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	tries, start := 0, time.Now()
	err := OutlastLook(path, func() error {
		tries++
		if err := closeNew(path); err != nil {
			return err
		}
		return unix.EBUSY
	}, never)
	took := time.Since(start)
	if !errors.Is(err, unix.EBUSY) || took < lookTime {
		t.Errorf("error %v after %v", err, took)
	}
	const growing = 8 // pauses that are shorter than the longest
	if limit := growing + int(lookTime/longestLookPause) + 2; tries > limit {
		t.Errorf("%d tries in %v, more than %d", tries, took, limit)
	}
	if took > 3*lookTime {
		ublktest.TimedOut(t, 3*lookTime, "the end of the tries, which took %v", took)
	}
}

// closeNew opens a file and closes it.
func closeNew(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return f.Close()
}
