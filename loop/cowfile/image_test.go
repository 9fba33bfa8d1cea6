package cowfile

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/hint"
)

// A store is refused over another image of the same size while its own image is at its path, and taken
// over a copy of that image. If the image has no mark, nothing is known about it, and a warning says so.
func TestStoreOverAnotherImage(t *testing.T) {
	dir := directory(t)
	base, other, copied, path := newBase(t, dir, 1<<20+512), filepath.Join(dir, "other"), filepath.Join(dir, "copy"), filepath.Join(dir, "store")
	data := content(t, base)
	writeFile(t, copied, data)
	data[len(data)-1] ^= 1
	writeFile(t, other, data)
	create(t, CreateOptions{Path: path, Origin: base, ChunkSize: 4096})
	table := func(image string) error { _, err := Table(TableOptions{Origin: image, Path: path}); return err }
	refused := func(what string) {
		t.Helper()
		err := table(other)
		fails(t, err, unix.EINVAL, path+" has changes of another image: invalid argument")
		if h := (*hint.Error)(nil); !errors.As(err, &h) || h.Hint != "its image is "+base {
			t.Errorf("%s: hint %v", what, h)
		}
	}
	doubts := func(image string, want bool) {
		t.Helper()
		if doubt := Doubt(image, path); (doubt != "") != want || want && !strings.HasSuffix(doubt, "its image was "+base) {
			t.Errorf("%s: %q", image, doubt)
		}
		if err := table(image); err != nil {
			t.Errorf("%s: %v", image, err)
		}
	}
	refused("an empty store")
	doubts(base, false)
	change(t, path, base, 5, 1)
	refused("a store with changes")
	doubts(base, false)
	doubts(copied, false)

	moved := filepath.Join(dir, "moved")
	if err := os.Rename(base, moved); err != nil {
		t.Fatal(err)
	}
	doubts(moved, false)
	doubts(copied, true)
	doubts(other, true)
	writeFile(t, base, data) // a later version of the image in its place
	doubts(base, true)
	doubts(other, true)
}

// An empty store has no changes that could be of another image.
func TestNoDoubtOfEmptyStore(t *testing.T) {
	dir := directory(t)
	base, path := newBase(t, dir, 1<<20), filepath.Join(dir, "store")
	create(t, CreateOptions{Path: path, Origin: base, ChunkSize: 4096})
	if _, err := Thaw(base); err != nil {
		t.Fatal(err)
	}
	if doubt := Doubt(base, path); doubt != "" {
		t.Error(doubt)
	}
}

func writeFile(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}
