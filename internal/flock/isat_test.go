package flock

import (
	"os"
	"path/filepath"
	"testing"
)

// Neither a removed file, nor another file or a link at the path, is the open file.
func TestIsAt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	other := path + "-renamed"
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	for _, step := range []struct {
		change func() error
		want   bool
	}{
		{func() error { return nil }, true},
		{func() error { return os.Rename(path, other) }, false},
		{func() error { return os.WriteFile(path, nil, 0o600) }, false},
		{func() error { return os.Remove(path) }, false},
		{func() error { return os.Symlink(other, path) }, false},
		{func() error { return os.Rename(other, path) }, true},
	} {
		if err := step.change(); err != nil {
			t.Fatal(err)
		}
		if got := IsAt(f, path); got != step.want {
			t.Errorf("%v, want %v", got, step.want)
		}
	}
	if err := f.Close(); err != nil || IsAt(f, path) {
		t.Errorf("a closed file is at a path, error %v", err)
	}
}
