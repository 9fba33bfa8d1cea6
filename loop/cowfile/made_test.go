package cowfile

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/ublk-loop/ublk-loop/loop/internal/backing"
)

// A store that Table has made can be removed, and its origin can be written to then. A file that existed
// is empty again. Remove leaves a store that is used, that has changes, or that Table has not made.
func TestRemoveMade(t *testing.T) {
	dir := directory(t)
	base := newBase(t, dir, 1<<20)
	made := func(name string) (string, *Made) {
		m := &Made{}
		path := filepath.Join(dir, name)
		if _, err := Table(TableOptions{Origin: base, Path: path, Made: m}); err != nil {
			t.Fatal(err)
		}
		return path, m
	}
	remove := func(m *Made) {
		t.Helper()
		if err := m.Remove(); err != nil {
			t.Error(err)
		}
	}
	writable := func() error {
		b, err := openLocked(base, &backing.Options{})
		if err != nil {
			return err
		}
		return b.Close()
	}

	path, m := made("new")
	remove(m)
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the store is left: %v", err)
	}
	if err := writable(); err != nil {
		t.Error(err)
	}
	remove(m)

	if err := os.WriteFile(filepath.Join(dir, "empty"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	path, m = made("empty")
	remove(m)
	if b := content(t, path); len(b) != 0 {
		t.Errorf("the file has %d bytes", len(b))
	}
	if err := writable(); err != nil {
		t.Error(err)
	}

	path, m = made("used")
	used, err := openStore(path, false)
	if err != nil {
		t.Fatal(err)
	}
	before := content(t, path)
	remove(m)
	if err := used.Close(); err != nil {
		t.Fatal(err)
	}
	change(t, path, base, 3, 1)
	changed := content(t, path)
	remove(m)
	_, again := made("used") // finds the store
	remove(again)
	if !bytes.Equal(content(t, path), changed) || bytes.Equal(before, changed) {
		t.Error("the store has changed")
	}
	if writable() == nil {
		t.Error("the origin lost its record")
	}
}
