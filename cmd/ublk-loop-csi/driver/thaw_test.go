package driver

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// A thaw whose device does not answer is not waited for longer than the caller does. It goes on, a second one waits for it, and
// so does who would freeze the file system.
func TestThawOfSilentDevice(t *testing.T) {
	var all thaws
	given, giveUp := context.WithCancel(t.Context())
	giveUp()
	goOn := make(chan struct{})
	if err := all.thaw(given, "/a", func() error { <-goOn; return unix.EIO }); !errors.Is(err, context.Canceled) {
		t.Errorf("without an answer: error %v", err)
	}
	if err := all.wait(given, "/a"); !errors.Is(err, context.Canceled) {
		t.Errorf("a freeze during the thaw: error %v", err)
	}
	if err := all.thaw(t.Context(), "/b", func() error { return nil }); err != nil {
		t.Errorf("another file system: error %v", err)
	}
	if err := all.thaw(given, "/a", func() error { t.Error("a second thaw begins"); return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("a second thaw: error %v", err)
	}
	close(goOn)
	if err := all.wait(t.Context(), "/a"); err != nil && !errors.Is(err, unix.EIO) {
		t.Errorf("after the end: error %v", err)
	}
}

// At its start, the driver waits for silent devices only for moments, so that calls for other volumes reach it. It reports such a
// device, and what its thaw returns. A freeze waits for the thaw.
func TestThawAtStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var all thaws
		reports := make(chan error, 2)
		report := func(err error) { reports <- err }
		given, giveUp := context.WithCancel(t.Context())
		giveUp()
		goOn, begun := make(chan struct{}), time.Now()
		all.atStart("/a", func() error { <-goOn; return unix.EIO }, report)
		if waited := time.Since(begun); waited > 5*time.Second {
			t.Errorf("it waits %s for a silent device", waited)
		}
		if err := all.wait(given, "/a"); !errors.Is(err, context.Canceled) {
			t.Errorf("a freeze during the thaw: error %v", err)
		}
		if err := <-reports; !errors.Is(err, errThawing) {
			t.Errorf("report %v, want %v", err, errThawing)
		}
		close(goOn)
		if err := <-reports; !errors.Is(err, unix.EIO) {
			t.Errorf("report %v, want %v", err, unix.EIO)
		}
		all.atStart("/b", func() error { return unix.ENOENT }, report)
		if err := <-reports; !errors.Is(err, unix.ENOENT) {
			t.Errorf("report %v, want %v", err, unix.ENOENT)
		}
		all.atStart("/c", func() error { return nil }, report)
		if len(reports) > 0 {
			t.Errorf("report %v of a thaw", <-reports)
		}
	})
}

// The end of a freeze that was given up counts as a thaw that is going on, and its error is reported. It comes also after another
// thaw.
func TestUndoOfFreeze(t *testing.T) {
	var all thaws
	reports := make(chan error, 1)
	given, giveUp := context.WithCancel(t.Context())
	giveUp()
	other, goOn := make(chan struct{}), make(chan struct{})
	if err := all.thaw(given, "/a", func() error { <-other; return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("without an answer: error %v", err)
	}
	begun := make(chan struct{})
	all.undo("/a", func() error { close(begun); <-goOn; return unix.EIO }, func(err error) { reports <- err })
	close(other)
	<-begun
	if err := all.wait(given, "/a"); !errors.Is(err, context.Canceled) {
		t.Errorf("a freeze before the end of the one that was given up: error %v", err)
	}
	close(goOn)
	if err := <-reports; !errors.Is(err, unix.EIO) {
		t.Errorf("report %v, want %v", err, unix.EIO)
	}
	all.undo("/b", func() error { return nil }, func(err error) { t.Errorf("report %v of a thaw", err) })
	if err := all.wait(t.Context(), "/b"); err != nil {
		t.Errorf("after the end: error %v", err)
	}
}
