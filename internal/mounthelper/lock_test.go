package mounthelper

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

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

// A helper that has stopped to wait for another one does not lock the image when that ends.
func TestLockGivenUp(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mount-8:1-7.lock")
	first, err := openLocked(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, giveUp := context.WithCancelCause(t.Context())
	second := make(chan error)
	go func() { // received below
		_, err := openLocked(ctx, path)
		second <- err
	}()
	awaitWaiter(t, path)
	giveUp(unix.EINTR)
	if err := <-second; !errors.Is(err, unix.EINTR) {
		t.Fatalf("error %v, want EINTR", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	soon, end := context.WithTimeout(t.Context(), 10*time.Second)
	defer end()
	third, err := openLocked(soon, path)
	if err != nil {
		t.Fatalf("the file is locked: %v", err)
	}
	_ = third.Close()
}

// awaitWaiter waits until a process waits for the lock of a file (/proc/locks in proc(5)).
func awaitWaiter(t *testing.T, path string) {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	waiter := regexp.MustCompile(fmt.Sprintf(`(?m)-> FLOCK .*:%d `, st.Ino))
	for deadline := time.Now().Add(10 * time.Second); ; {
		locks, err := os.ReadFile("/proc/locks")
		if err != nil {
			t.Fatal(err)
		}
		if waiter.Match(locks) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("no process waits for the lock:\n%s", locks)
		}
		<-time.After(time.Millisecond)
	}
}
