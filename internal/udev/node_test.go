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

// Open waits for a node that appears late.
func TestOpenWaits(t *testing.T) {
	path := filepath.Join(t.TempDir(), "node")
	made := time.AfterFunc(50*time.Millisecond, func() { _ = os.WriteFile(path, nil, 0o600) })
	defer made.Stop()
	f, err := Open(context.Background(), path)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if _, err := os.Stat(path); err != nil {
		t.Errorf("it did not wait: %v", err)
	}
}

func TestOpenInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	defer time.AfterFunc(50*time.Millisecond, cancel).Stop()
	_, err := Open(ctx, filepath.Join(t.TempDir(), "node"))
	if !errors.Is(err, context.Canceled) { // after openTimeout it would be another error
		t.Errorf("error %v", err)
	}
}

func TestOpenError(t *testing.T) {
	path := filepath.Join(t.TempDir(), "node")
	if err := unix.Mkfifo(path, 0); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(path, path); err != nil {
		t.Fatal(err)
	}
	_, err := Open(context.Background(), path)
	if !errors.Is(err, unix.ELOOP) || err.Error() != "open "+path+": too many levels of symbolic links" {
		t.Errorf("error %v", err)
	}
}
