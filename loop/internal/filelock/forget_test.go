package filelock

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/identity"
)

// Forget removes the file of a killed server, but not a file with a lock.
func TestForget(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "locks")
	forgets(t, dir, file, false)
	nothingIn(t, dir)
	held(t, dir, file, Range{}, Exclusive).drop()
	second := held(t, dir, disk, Range{}, Exclusive)
	forgets(t, dir, file, true)
	forgets(t, dir, disk, true)
	forgets(t, dir, identity.File{Device: "8:1", Inode: 13}, false)
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 || left[0].Name() != second.name {
		t.Errorf("left are %v, error %v; want %s", left, err, second.name)
	}
}

func forgets(t *testing.T, dir string, object identity.File, want bool) {
	t.Helper()
	if found, err := Forget(dir, object); err != nil || found != want {
		t.Errorf("Forget of %v: found %v, error %v; want %v", object, found, err, want)
	}
}

// Sweep removes all files without locks.
func TestSweep(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "locks")
	want(t, Sweep(dir), nil)
	nothingIn(t, dir)
	held(t, dir, file, Range{}, Exclusive).drop()
	second := held(t, dir, disk, Range{}, Exclusive)
	held(t, dir, identity.File{Device: "8:1", Inode: 13}, Range{}, Exclusive).drop()
	want(t, Sweep(dir), nil)
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 || left[0].Name() != second.name {
		t.Errorf("left are %v, error %v; want %s", left, err, second.name)
	}
	second.drop()
	want(t, Sweep(dir), nil)
	nothingIn(t, dir)
}

// A link in the directory is not followed.
func TestSweepFollowsNoLink(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "locks")
	second := held(t, dir, disk, Range{}, Exclusive)
	target, link := filepath.Join(t.TempDir(), "target"), filepath.Join(dir, "link")
	if err := errors.Join(os.WriteFile(target, nil, 0o600), os.Symlink(target, link)); err != nil {
		t.Fatal(err)
	}
	want(t, Sweep(dir), unix.ELOOP)
	if _, err := os.Lstat(link); err != nil {
		t.Errorf("the link was removed: %v", err)
	}
	if err := os.Remove(link); err != nil {
		t.Fatal(err)
	}
	second.drop()
	want(t, Sweep(dir), nil)
	nothingIn(t, dir)
}

// The ring of a killed server ends after the process.
func TestForgetWaitsForRings(t *testing.T) {
	waitsForRings(t, func(l *Lock) error {
		l.drop()
		_, err := Forget(l.dir, file)
		return err
	})
}

// If the process that serves the rings was killed, its rings also end after the server has
// released the lock.
func TestReleaseWaitsForRings(t *testing.T) { waitsForRings(t, (*Lock).Release) }

// waitsFor checks that do waits for a ring, which has a lock.
func waitsFor(t *testing.T, ring *os.File, do func() error) {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- do() }() // received below
	select {
	case err := <-done:
		t.Fatalf("it does not wait: error %v", err)
	case <-time.After(longestPause):
	}
	if err := ring.Close(); err != nil {
		t.Fatal(err)
	}
	want(t, <-done, nil)
}

// waitsForRings checks that end waits for a ring that has the lock, and then removes the file.
func waitsForRings(t *testing.T, end func(*Lock) error) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "locks")
	l := held(t, dir, file, Range{}, Exclusive)
	ring := registered(t, l)
	waitsFor(t, ring, func() error { return end(l) })
	nothingIn(t, dir)
	if held, err := IsHeld(dir, file); err != nil || held {
		t.Errorf("held %v, error %v", held, err)
	}
}

// A new lock waits for the ring of a killed server.
func TestAcquireWaitsForRings(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "locks")
	killed := held(t, dir, file, Range{}, Exclusive)
	ring := registered(t, killed)
	killed.drop()
	waitsFor(t, ring, func() error {
		l, err := Acquire(dir, file, Range{}, Shared)
		if err == nil {
			l.drop()
		}
		return err
	})
}

// A lock that becomes exclusive waits for the ring of a killed server, too.
func TestChangeWaitsForRings(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "locks")
	reader, killed := held(t, dir, file, Range{}, Shared), held(t, dir, file, Range{}, Shared)
	ring := registered(t, killed)
	killed.drop()
	waitsFor(t, ring, func() error { return reader.Change(Range{}, file, Exclusive) })
}
