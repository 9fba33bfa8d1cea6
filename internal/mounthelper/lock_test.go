package mounthelper

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// The lock of a helper that was killed goes when another one mounts. One that is held stays, and so do other files.
func TestSweepLocks(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"mount-8:1-7.lock", "mount-8:1-8.lock", "control.lock", "1.lock"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	held, err := os.OpenFile(filepath.Join(dir, "mount-8:1-8.lock"), os.O_RDWR, 0)
	if err == nil {
		err = unix.Flock(int(held.Fd()), unix.LOCK_EX)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = held.Close() }()
	sweepLocks(dir)
	for name, stays := range map[string]bool{"mount-8:1-7.lock": false, "mount-8:1-8.lock": true, "control.lock": true, "1.lock": true} {
		if _, err := os.Stat(filepath.Join(dir, name)); errors.Is(err, os.ErrNotExist) == stays {
			t.Errorf("%s: error %v", name, err)
		}
	}
}
