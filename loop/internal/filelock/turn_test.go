package filelock

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A link that leads nowhere in place of the directory, or of one above it, is an error.
func TestTurnInDanglingDirectory(t *testing.T) {
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(link+"-to-nothing", link); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{link, filepath.Join(link, "ublk-loop", "locks")} {
		ended := make(chan error, 1)
		go func() { ended <- InTurn(dir, func() error { return nil }) }()
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
