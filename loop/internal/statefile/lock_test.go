package statefile

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Only one process holds the lock at a time, each gets it, and no file is left.
func TestLock(t *testing.T) {
	dir := t.TempDir()
	path, counter := filepath.Join(dir, "0.lock"), filepath.Join(t.TempDir(), "counter")
	if err := os.WriteFile(counter, []byte("0"), 0o600); err != nil {
		t.Fatal(err)
	}
	const holders, rounds = 8, 50
	done := make(chan error)
	for range holders {
		go func() { // until its rounds are over; its error is received below
			done <- countUnderLock(path, counter, rounds)
		}()
	}
	for range holders {
		sweep(dir)
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	data, err := os.ReadFile(counter)
	if err != nil || string(data) != strconv.Itoa(holders*rounds) {
		t.Errorf("counted to %q, error %v; want %d", data, err, holders*rounds)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left are %v, error %v", left, err)
	}
}

// A lock whose holder was killed goes with the next sweep. One that is held stays.
func TestSweep(t *testing.T) {
	dir := t.TempDir()
	held, err := lockFile(filepath.Join(dir, "1.lock"), soon())
	if err != nil {
		t.Fatal(err)
	}
	killed, err := lockFile(filepath.Join(dir, "2.lock"), soon())
	if err != nil {
		t.Fatal(err)
	}
	if err := killed.file.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "control.lock"), nil, 0o600); err != nil { // of serve
		t.Fatal(err)
	}
	sweep(dir)
	wantFiles(t, dir, "1.lock", "control.lock")
	held.Release()
	sweep(dir)
	wantFiles(t, dir, "control.lock")
}

// An empty report of a crash goes with the next sweep if its device is gone.
func TestSweepReports(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"1.crash": "", "2.crash": "panic", "3.crash": "", "3.json": "{}", "4.crash": "", "x.crash": ""} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	held, err := lockFile(filepath.Join(dir, "4.lock"), soon()) // of a device that is being made
	if err != nil {
		t.Fatal(err)
	}
	sweepReports(dir)
	wantFiles(t, dir, "2.crash", "3.crash", "3.json", "4.crash", "4.lock", "x.crash")
	held.Release()
	sweepReports(dir)
	wantFiles(t, dir, "2.crash", "3.crash", "3.json", "x.crash")
}

// soon returns a deadline that is far enough for a lock whose holders release it.
func soon() time.Time { return time.Now().Add(time.Minute) }

func wantFiles(t *testing.T, dir string, want ...string) {
	t.Helper()
	var names []string
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if err != nil || !slices.Equal(names, want) {
		t.Errorf("there are %q, error %v; want %q", names, err, want)
	}
}

// A lock of the directory, which stands for those of all devices, excludes each of them.
func TestLockOfDirectory(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "1.lock")
	one, err := lockState(path, soon())
	if err != nil {
		t.Fatal(err)
	}
	directory, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = directory.Close() }()
	if err := unix.Flock(int(directory.Fd()), unix.LOCK_EX|unix.LOCK_NB); !errors.Is(err, unix.EWOULDBLOCK) {
		t.Errorf("the directory, while a device is locked: error %v", err)
	}
	one.Release()
	if err := unix.Flock(int(directory.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		t.Errorf("the directory, when no device is locked: %v", err)
	}
	wantFiles(t, dir)
}

// A process that keeps a lock, such as a stopped one, fails the others at their deadlines, whichever lock they wait for. The lock
// of one device does not fail those of others, and a failed wait keeps no lock.
func TestLockIsBounded(t *testing.T) {
	passed := time.Now()
	dir := t.TempDir()
	path := filepath.Join(dir, "1.lock")
	held, err := lockState(path, soon())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lockState(path, passed); !errors.Is(err, unix.ETIMEDOUT) || !strings.Contains(err.Error(), " has it for ") {
		t.Errorf("beside the lock of the device: error %v", err)
	}
	if other, err := lockState(filepath.Join(dir, "2.lock"), passed); err != nil {
		t.Errorf("beside the lock of another device: error %v", err)
	} else {
		other.Release()
	}
	held.Release()
	directory, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(int(directory.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if _, err := lockState(path, passed); !errors.Is(err, unix.ETIMEDOUT) {
		t.Errorf("beside the lock of the directory: error %v", err)
	}
	if waited := time.Since(passed); waited >= patience {
		t.Errorf("it waits %s after the deadline", waited)
	}
	if err := directory.Close(); err != nil {
		t.Fatal(err)
	}
	held, err = lockState(path, soon())
	if err != nil {
		t.Fatalf("after all: %v", err)
	}
	held.Release()
}

// countUnderLock increments the number in a file, in the same way as a state is changed:
// it reads the file and replaces it.
func countUnderLock(path, counter string, rounds int) error {
	for range rounds {
		l, err := lockState(path, soon())
		if err != nil {
			return err
		}
		data, err := os.ReadFile(counter)
		if err != nil {
			return err
		}
		n, err := strconv.Atoi(string(data))
		if err != nil {
			return err
		}
		if err := os.WriteFile(counter, []byte(strconv.Itoa(n+1)), 0o600); err != nil {
			return err
		}
		l.Release()
	}
	return nil
}
