package cowfile

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// A file that was made for a transient store can be used again. So can a hole, as truncate(1) makes it.
func TestTransientAgain(t *testing.T) {
	dir := directory(t)
	base := newBase(t, dir, 1<<20)
	for _, name := range []string{"new", "hole"} {
		path := filepath.Join(dir, name)
		if name == "hole" {
			must(t, os.WriteFile(path, nil, 0o600), os.Truncate(path, 1<<20))
		}
		transient(t, base, path, nil)
		if name == "new" {
			must(t, overwrite(path))
			transient(t, base, path, nil)
		}
	}
}

// A transient store takes the place of no persistent one, and of no file with data.
func TestTransientRefusesData(t *testing.T) {
	dir := directory(t)
	base := newBase(t, dir, 1<<20)
	store, other := filepath.Join(dir, "store"), filepath.Join(dir, "other")
	if _, err := Table(TableOptions{Origin: base, Path: store}); err != nil {
		t.Fatal(err)
	}
	must(t, unix.Setxattr(store, scratchAttribute, nil, 0)) // as of a file that had both uses
	must(t, os.WriteFile(other, make([]byte, 1<<20), 0o600), overwrite(other))
	for _, path := range []string{store, other} {
		before, err := os.ReadFile(path)
		must(t, err)
		transient(t, base, path, unix.EEXIST)
		after, err := os.ReadFile(path)
		if must(t, err); string(after) != string(before) {
			t.Errorf("%s has changed", path)
		}
	}
}

// overwrite writes to a file as a first write of a transient store does.
func overwrite(path string) error {
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	_, err = file.Write([]byte("changed"))
	return err
}

// transient makes the table of a transient store.
func transient(t *testing.T, base, path string, want error) {
	t.Helper()
	if _, err := Table(TableOptions{Origin: base, Path: path, Transient: true}); !errors.Is(err, want) {
		t.Errorf("%s: error %v, want %v", path, err, want)
	}
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}
