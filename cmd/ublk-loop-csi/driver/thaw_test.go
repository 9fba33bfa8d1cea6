package driver

import (
	"context"
	"errors"
	"testing"

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
