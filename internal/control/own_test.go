package control

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/ublk-loop/ublk-loop/loop"
)

// Stores that a client has opened are opened again by their paths, unless these lead to other files. A store
// without a name has no path yet.
func TestOwnMountsOfStores(t *testing.T) {
	path := file(t, "content")
	other, directory := file(t, "other"), t.TempDir()
	if err := os.Symlink(other, filepath.Join(directory, "moved")); err != nil {
		t.Fatal(err)
	}
	root, err := os.Open("/")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = root.Close() }()
	s := &Server{OpenCached: func(path string) (*os.File, error) { return loop.OpenCachedPathIn(root, path) }}
	for _, tt := range []struct {
		path      string
		directory bool
		own       bool
	}{
		{path: path, own: true},
		{path: path, directory: true},
		{path: filepath.Join(directory, "moved")},
		{path: filepath.Join(directory, "gone")},
		{path: "/dev/null"},
	} {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		sent := os.NewFile(uintptr(dup(t, f)), tt.path)
		_ = f.Close()
		store := &loop.NewFile{File: sent}
		if tt.directory {
			if store.Directory, err = os.Open(directory); err != nil {
				t.Fatal(err)
			}
		}
		s.useOwnMountsOf([]*loop.NewFile{store})
		_, err = sent.Stat()
		if own := store.File != sent; own != tt.own || own != (err != nil) {
			t.Errorf("%s: opened again: %v, the client's: %v", tt.path, own, err)
		}
		if info, err := store.File.Stat(); err != nil || info.Size() != int64(len("content")) {
			t.Errorf("%s: another file, or %v", tt.path, err)
		}
		closeStores([]*loop.NewFile{store})
	}
}
