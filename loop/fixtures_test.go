package loop

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/loop/internal/backing"
)

// newFile makes a file of a size, which is one hole.
func newFile(t testing.TB, name string, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	return path
}

// openPath opens a path for a test.
func openPath(t testing.TB, path string) *os.File {
	t.Helper()
	f, err := OpenPath(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// openFor opens a file as a backing for a test.
func openFor(t testing.TB, path string, cfg Config) (*backing.Backing, error) {
	t.Helper()
	o, err := cfg.backingOptions(path)
	if err != nil {
		return nil, err
	}
	o.LockDir = t.TempDir()
	b, err := backing.Open(openPath(t, path), o)
	if err == nil {
		t.Cleanup(func() { _ = b.Close() })
	}
	return b, err
}

func hasDirectFlag(t *testing.T, fd int) bool {
	t.Helper()
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		t.Fatal(err)
	}
	return flags&unix.O_DIRECT != 0
}

// wantHint checks an error's errno, path and hint. An empty hint means that there must be
// none.
func wantHint(t testing.TB, err, want error, path, wanted string) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("error %v, want %v", err, want)
		return
	}
	if !strings.Contains(err.Error(), path) {
		t.Errorf("error %q lacks the path %s", err, path)
	}
	var h *hint.Error
	switch {
	case errors.As(err, &h) != (wanted != ""):
		t.Errorf("error %q: hint %v, want %q", err, h, wanted)
	case h != nil && !strings.Contains(h.Hint, wanted):
		t.Errorf("hint %q lacks %q", h.Hint, wanted)
	case h != nil && strings.Contains(err.Error(), h.Hint):
		t.Errorf("error %q has the hint in it", err)
	}
}
