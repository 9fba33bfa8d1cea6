package udev

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// until tries again after the event of a close, because the closed file is free only
// after the event.
func TestWatchTriesAfterTheEvent(t *testing.T) {
	dir := t.TempDir()
	w := &dirWatch{dir: dir}
	defer w.close()
	tries := 0
	start := time.Now()
	// Without the tries after the event, until gives up after openTimeout.
	err := w.until(context.Background(), func() error {
		if tries++; tries <= 2 { // the first try comes before the watch
			return errors.Join(os.WriteFile(filepath.Join(dir, "event"), nil, 0o600), unix.EBUSY)
		}
		if time.Since(start) < 50*time.Millisecond {
			return unix.EBUSY
		}
		return nil
	}, unix.EBUSY)
	if err != nil {
		t.Errorf("error %v after %v", err, time.Since(start))
	}
	if tries > 20 {
		t.Errorf("%d tries in 50 ms", tries)
	}
}

func TestWatchError(t *testing.T) {
	w := &dirWatch{dir: "/nonexistent"}
	defer w.close()
	err := w.until(context.Background(), func() error { return unix.ENOENT }, unix.ENOENT)
	if err == nil || err.Error() != "watch /nonexistent: no such file or directory" {
		t.Errorf("error %v", err)
	}
}

// until makes no watch unless it has to wait, because a watch costs an add more time than
// everything else.
func TestWatchOnlyWhereNeeded(t *testing.T) {
	w := &dirWatch{dir: t.TempDir()}
	defer w.close()
	if err := w.until(context.Background(), func() error { return nil }, unix.ENOENT); err != nil || w.events != nil {
		t.Errorf("error %v, watched: %v", err, w.events != nil)
	}
}
