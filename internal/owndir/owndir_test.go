package owndir

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// A directory is refused if others have the access that the caller names.
func TestCheck(t *testing.T) {
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = root.Close() }()
	for _, tt := range []struct {
		is      os.FileMode
		refused uint32
		want    error
	}{{0o700, 0o077, nil}, {0o750, 0o077, unix.EPERM}, {0o755, 0o022, nil}, {0o775, 0o022, unix.EPERM}, {0o757, 0o022, unix.EPERM}} {
		if err := os.Chmod(dir, tt.is); err != nil {
			t.Fatal(err)
		}
		if err := Check(root, tt.refused); !errors.Is(err, tt.want) {
			t.Errorf("mode %o, refused %o: error %v, want %v", tt.is, tt.refused, err, tt.want)
		}
	}
}

// A directory has one lock, until its file is closed.
func TestLock(t *testing.T) {
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = root.Close() }()
	for range 2 {
		f, err := Lock(root, "lock")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Lock(root, "lock"); !errors.Is(err, unix.EAGAIN) {
			t.Errorf("locked twice: error %v", err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// Only the directory itself is private, whatever the umask. A second call changes nothing.
func TestMake(t *testing.T) {
	defer unix.Umask(unix.Umask(0o077))
	shared := filepath.Join(t.TempDir(), "missing", "run")
	own := filepath.Join(shared, "own")
	for range 2 {
		if err := Make(own); err != nil {
			t.Fatal(err)
		}
		for path, want := range map[string]os.FileMode{filepath.Dir(shared): 0o755, shared: 0o755, own: 0o700} {
			if made, err := os.Stat(path); err != nil || made.Mode().Perm() != want {
				t.Errorf("%s: mode %v, error %v; want %o", path, made.Mode(), err, want)
			}
		}
	}
}

// What is not a directory is an error.
func TestMakeBelowFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, filepath.Join(file, "own"), filepath.Join(file, "run", "own")} {
		if err := Make(path); !errors.Is(err, unix.ENOTDIR) {
			t.Errorf("%s: error %v, want ENOTDIR", path, err)
		}
	}
}
