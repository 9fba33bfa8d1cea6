package udev

import (
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
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

// A close ends a long pause, although the device becomes free only a moment after the
// event.
func TestOutlastLookSeesTheClose(t *testing.T) {
	path := filepath.Join(t.TempDir(), "node")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	const moment = 20 * time.Millisecond
	var closed atomic.Int64
	defer time.AfterFunc(time.Second, func() { // by then the pauses have their maximum
		closed.Store(time.Now().UnixNano())
		_ = f.Close()
	}).Stop()
	remove := func() error {
		if at := closed.Load(); at == 0 || time.Since(time.Unix(0, at)) < moment {
			return unix.EBUSY
		}
		return nil
	}
	if err := OutlastLook(path, remove, never); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(time.Unix(0, closed.Load())); took > longestLookPause*3/4 {
		t.Errorf("noticed %v after the close", took)
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

// OutlastLook gives up if the use lasts too long for udev.
func TestOutlastLookGivesUp(t *testing.T) {
	start := time.Now()
	err := OutlastLook("/nothing", func() error { return unix.EBUSY }, never)
	if took := time.Since(start); !errors.Is(err, unix.EBUSY) || took < lookTime || took > 3*lookTime {
		t.Errorf("error %v after %v", err, took)
	}
}
