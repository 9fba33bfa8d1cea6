package keysource

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/ptytest"
	"github.com/ublk-loop/ublk-loop/internal/report"
)

// openFifo returns the path of a FIFO that has no writer until the test ends.
func openFifo(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // the goroutine that opens it ends
		if f, err := os.OpenFile(path, os.O_RDWR, 0); err == nil {
			_ = f.Close()
		}
	})
	return path
}

// openPipe returns a pipe that has no data and no end until the test ends.
func openPipe(t *testing.T) *os.File {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = w.Close(), r.Close() })
	return r
}

// An interrupt ends the wait for a key that does not come.
func TestReadInterrupted(t *testing.T) {
	stdin := os.Stdin
	os.Stdin = openPipe(t)
	t.Cleanup(func() { os.Stdin = stdin })
	_, program := ptytest.New(t)
	before := ptytest.LocalFlags(t, program)
	for name, read := range map[string]func(context.Context) error{
		"a FIFO without a writer": func(ctx context.Context) error {
			_, _, err := (&Source{Kind: File, File: openFifo(t)}).Key(ctx)
			return err
		},
		"a pipe without an end": func(ctx context.Context) error {
			_, _, err := (&Source{Kind: Descriptor, FD: passed(t, openPipe(t))}).Key(ctx)
			return err
		},
		"standard input": func(ctx context.Context) error {
			_, _, err := (&Source{}).passphrase(ctx, "volume")
			return err
		},
		"a terminal": func(ctx context.Context) error {
			_, err := readHidden(ctx, program)
			return err
		},
	} {
		ctx, interrupt := context.WithCancelCause(t.Context())
		done := make(chan error, 1)
		go func() { done <- read(ctx) }() // received below
		if name == "a terminal" {
			awaitEcho(t, program, 0)
		}
		interrupt(report.ErrInterrupted)
		select {
		case err := <-done:
			if !errors.Is(err, report.ErrInterrupted) {
				t.Errorf("%s: error %v", name, err)
			}
		case <-time.After(10 * time.Second):
			t.Errorf("%s: it waits on", name)
		}
	}
	if after := ptytest.LocalFlags(t, program); after != before {
		t.Errorf("the terminal is left as %#x, was %#x", after, before)
	}
}

// awaitEcho waits until the echo of a terminal is on or off.
func awaitEcho(t *testing.T, terminal *os.File, want uint32) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ptytest.LocalFlags(t, terminal)&unix.ECHO != want; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the echo does not become %#x", want)
		}
	}
}
