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

// A change that lasts, such as on a frozen file system, fails another one of the same object in time, and nothing else.
func TestChangeThatLasts(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run", "locks")
	frozen, other := identity.File{Device: "8:1", Inode: 7}, identity.File{Device: "8:1", Inode: 8}
	nothing := func() error { return nil }
	err := Changing(dir, frozen, func() error {
		if err := changingWithin(dir, frozen, 10*time.Millisecond, nothing); !errors.Is(err, unix.ETIMEDOUT) {
			t.Errorf("the same object: error %v", err)
		}
		if err := changingWithin(dir, other, 10*time.Millisecond, nothing); err != nil {
			t.Errorf("another object: error %v", err)
		}
		turn, err := takeTurnWithin(dir, 10*time.Millisecond)
		if err != nil {
			t.Errorf("a turn: error %v", err)
		} else {
			_ = turn.Close()
		}
		return unix.EIO
	})
	if !errors.Is(err, unix.EIO) {
		t.Errorf("error %v, want %v", err, unix.EIO)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory of locks is left: error %v", err)
	}
}

// A process that is stopped in its turn does not delay a change that was made.
func TestChangeWithoutTurn(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run", "locks")
	var turn *os.File
	var begun time.Time
	err := Changing(dir, identity.File{Device: "8:1", Inode: 7}, func() (err error) {
		turn, err = takeTurn(dir)
		begun = time.Now()
		return err
	})
	if took := time.Since(begun); err != nil || took > turnPatience/2 {
		t.Errorf("the change ends %v after it was made, error %v", took, err)
	}
	if turn != nil {
		_ = turn.Close()
	}
}

// A change that was made is no failure because the file of its lock cannot be removed. The next change removes it.
func TestChangeWithoutRemoval(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run", "locks")
	object, away := identity.File{Device: "8:1", Inode: 7}, dir+"-away"
	err := Changing(dir, object, func() error {
		return errors.Join(os.Rename(dir, away), os.WriteFile(dir, nil, 0o600)) // no turn can be taken there
	})
	if err != nil {
		t.Errorf("error %v after a successful change", err)
	}
	if err := errors.Join(os.Remove(dir), os.Rename(away, dir)); err != nil {
		t.Fatal(err)
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != 1 {
		t.Errorf("left are %v, error %v; want the file of the lock", files, err)
	}
	if err := Changing(dir, object, func() error { return nil }); err != nil {
		t.Errorf("the next change: error %v", err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory of locks is left: error %v", err)
	}
}
