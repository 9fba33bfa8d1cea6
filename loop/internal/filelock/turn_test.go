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

// Only the directory of the locks and the one above it are private.
func TestTurnMakesDirectories(t *testing.T) {
	run := filepath.Join(t.TempDir(), "run")
	dir := filepath.Join(run, "ublk-loop", "locks")
	if err := Changing(dir, identity.File{}, func() error { return nil }); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]os.FileMode{run: 0o755, filepath.Dir(dir): 0o700} {
		if made, err := os.Stat(path); err != nil || made.Mode().Perm() != want {
			t.Errorf("%s: %v, error %v; want mode %o", path, made, err, want)
		}
	}
}

// A link that leads nowhere in place of the directory, or of one above it, is an error.
func TestTurnInDanglingDirectory(t *testing.T) {
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(link+"-to-nothing", link); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{link, filepath.Join(link, "ublk-loop", "locks")} {
		ended := make(chan error, 1)
		go func() { ended <- Changing(dir, identity.File{}, func() error { return nil }) }()
		select {
		case err := <-ended:
			if !errors.Is(err, os.ErrExist) {
				t.Errorf("turn in %s: error %v, want %v", dir, err, os.ErrExist)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("the turn in %s does not end", dir)
		}
	}
}

// A process that is stopped in its turn fails the others in time.
func TestTurnThatLasts(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run", "locks")
	turn, err := takeTurn(dir)
	if err != nil {
		t.Fatal(err)
	}
	if next, err := takeTurnWithin(dir, 10*time.Millisecond); !errors.Is(err, unix.ETIMEDOUT) {
		t.Errorf("a second turn: %v, error %v", next, err)
	}
	_ = turn.Close()
	next, err := takeTurnWithin(dir, time.Minute) // the one that has given up may have it for a moment
	if err != nil {
		t.Fatal(err)
	}
	_ = next.Close()
}
