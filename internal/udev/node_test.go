package udev

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/hint"
)

// Open waits for a node that appears late.
func TestOpenWaits(t *testing.T) {
	path := filepath.Join(t.TempDir(), "node")
	made := time.AfterFunc(50*time.Millisecond, func() { _ = os.WriteFile(path, nil, 0o600) })
	defer made.Stop()
	_, err := Open(context.Background(), path, "0:0")
	if !errors.Is(err, unix.ENOTBLK) {
		t.Fatalf("a file that is not a node: error %v", err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("it did not wait: %v", err)
	}
}

func TestOpenInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	defer time.AfterFunc(50*time.Millisecond, cancel).Stop()
	_, err := Open(ctx, filepath.Join(t.TempDir(), "node"), "0:0")
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
	_, err := Open(context.Background(), path, "0:0")
	if !errors.Is(err, unix.ELOOP) || err.Error() != "open "+path+": too many levels of symbolic links" {
		t.Errorf("error %v", err)
	}
}

// The name of a new device may belong to something else. Open must not open that, and says what
// to do.
func TestOpenOther(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo") // an open of it would wait
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), openTimeout/2)
	defer cancel()
	for _, path := range []string{fifo, dir, "/dev/null"} {
		_, err := Open(ctx, path, "259:0")
		var hinted *hint.Error
		if !errors.Is(err, unix.ENOTBLK) || !errors.As(err, &hinted) || hinted.Hint != "remove the file: rm "+path {
			t.Errorf("%s: error %v", path, err)
		}
	}
}
