package statefile

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"
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

// countUnderLock increments the number in a file, in the same way as a state is changed:
// it reads the file and replaces it.
func countUnderLock(path, counter string, rounds int) error {
	for range rounds {
		l, err := lockFile(path)
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
