package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A node that comes later is waited for.
func TestOpenDeviceWaits(t *testing.T) {
	path := filepath.Join(t.TempDir(), "node")
	made := time.AfterFunc(50*time.Millisecond, func() { _ = os.WriteFile(path, nil, 0o600) })
	defer made.Stop()
	if err := openDevice(context.Background(), path, false); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("it did not wait: %v", err)
	}
}

func TestOpenDeviceInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	defer time.AfterFunc(50*time.Millisecond, cancel).Stop()
	start := time.Now()
	err := openDevice(ctx, filepath.Join(t.TempDir(), "node"), false)
	if took := time.Since(start); !errors.Is(err, errInterrupted) || took > openTimeout/2 {
		t.Errorf("error %v after %v", err, took)
	}
}

func TestOpenDeviceError(t *testing.T) {
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
	err := openDevice(context.Background(), path, false)
	if !errors.Is(err, unix.ELOOP) || err.Error() != "open "+path+": too many levels of symbolic links" {
		t.Errorf("error %v", err)
	}
}

func TestWatchError(t *testing.T) {
	if _, err := watchDir("/nonexistent"); err == nil {
		t.Error("a directory that is not there is watched")
	}
}
