package cowfile

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/transfer/snapshot"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// A file of size 0 becomes a store, as one that is missing does. Its owner and mode stay.
func TestEmptyFileBecomesStore(t *testing.T) {
	dir := directory(t)
	base := newBase(t, dir, 1<<20)
	for name, use := range map[string]func(path string) error{
		"create": func(path string) error { return Create(CreateOptions{Path: path, Origin: base}) },
		"table":  func(path string) error { _, err := Table(TableOptions{Origin: base, Path: path}); return err },
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, nil, 0o640); err != nil {
			t.Fatal(err)
		}
		if err := use(path); err != nil {
			t.Fatal(err)
		}
		info, err := Inspect(path)
		if err != nil || info.ChunkSize != DefaultChunkSize || info.Label.OriginPath != base {
			t.Errorf("%s: %+v, error %v", name, info, err)
		}
		if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o640 {
			t.Errorf("%s: %v, error %v", name, st, err)
		}
	}
	path := filepath.Join(dir, "transient")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Table(TableOptions{Origin: base, Path: path, Transient: true}); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(path); err != nil || st.Size() != 1<<20 {
		t.Errorf("%v, error %v", st, err)
	}
}

// A table cannot have a path with white space. It has the symbolic link that was named.
func TestTableHasLink(t *testing.T) {
	dir := directory(t)
	base, link, store := filepath.Join(dir, "a b"), filepath.Join(dir, "link"), filepath.Join(dir, "store")
	if err := os.Rename(newBase(t, dir, 1<<20), base); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("a b", link); err != nil {
		t.Fatal(err)
	}
	text, err := Table(TableOptions{Origin: link, Path: store, Transient: true})
	if want := "0 2048 snapshot " + link + " " + store + " N 128\n"; err != nil || text != want {
		t.Errorf("table %q, error %v, want %q", text, err, want)
	}
	_, err = Table(TableOptions{Origin: base, Path: store, Transient: true})
	if h := (*hint.Error)(nil); !errors.Is(err, errors.ErrUnsupported) || !errors.As(err, &h) || !strings.Contains(h.Hint, "symbolic link") {
		t.Errorf("error %v, hint %v", err, h)
	}
}

// Other files that exist stay as they are, and so does an empty file after an error.
func TestFileIsNotEmpty(t *testing.T) {
	dir := directory(t)
	base := newBase(t, dir, 1<<20)
	path := func(name string) string { return filepath.Join(dir, name) }
	err := errors.Join(
		os.WriteFile(path("zeroes"), make([]byte, 1<<20), 0o600), os.WriteFile(path("two names"), nil, 0o600),
		os.Link(path("two names"), path("link")), os.WriteFile(path("target"), nil, 0o600), os.Symlink(path("target"), path("symlink")),
		unix.Mkfifo(path("fifo"), 0o600), os.WriteFile(path("small"), nil, 0o600),
	)
	if err != nil {
		t.Fatal(err)
	}
	names := []string{"zeroes", "link", "symlink", "fifo"}
	if ublktest.HasOtherUsers() {
		if err := errors.Join(os.WriteFile(path("foreign"), nil, 0o666), os.Chown(path("foreign"), 1000, 1000)); err != nil {
			t.Fatal(err)
		}
		names = append(names, "foreign")
	}
	for _, name := range names {
		if err := Create(CreateOptions{Path: path(name), Origin: base}); !errors.Is(err, os.ErrExist) {
			t.Errorf("%s: %v", name, err)
		} else if h := (*hint.Error)(nil); !errors.As(err, &h) || !strings.Contains(h.Hint, "remove") {
			t.Errorf("%s: hint %v", name, h)
		}
	}
	err = Create(CreateOptions{Path: path("small"), Origin: base, Size: 5000})
	if !errors.Is(err, snapshot.ErrTooSmall) {
		t.Error(err)
	}
	marked := errors.New("no mark")
	before := unix.Setxattr(base, "user.ublk-loop.stores", []byte{1}, 0) // a damaged list
	if before == nil {
		marked = Create(CreateOptions{Path: path("small"), Origin: base})
	}
	if marked == nil {
		t.Error("a store of a base with a damaged list was made")
	}
	for name, size := range map[string]int64{"zeroes": 1 << 20, "two names": 0, "target": 0, "small": 0} {
		if st, err := os.Stat(path(name)); err != nil || st.Size() != size {
			t.Errorf("%s: %v, error %v", name, st, err)
		}
	}
}
