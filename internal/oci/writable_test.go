package oci

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/oci/below"
)

// openPath opens a directory in the same way as an overlay's directory.
func openPath(t *testing.T, path string) *os.File {
	t.Helper()
	dir, err := os.OpenFile(path, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = dir.Close() })
	return dir
}

// makeDirs makes directories with a mode below top.
func makeDirs(t *testing.T, top string, mode os.FileMode, names ...string) {
	t.Helper()
	for _, name := range names {
		path := filepath.Join(top, name)
		if err := errors.Join(os.MkdirAll(path, 0o700), os.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
	}
}

func modeOf(t *testing.T, path string) os.FileMode {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Mode() &^ os.ModeDir
}

// A new upper directory gets the attributes of the lower one. An existing one keeps its
// own.
func TestOpenWritable(t *testing.T) {
	top := t.TempDir()
	makeDirs(t, top, 0o700, "dir")
	for _, lowerMode := range []os.FileMode{0o751 | os.ModeSticky, 0o500} {
		makeDirs(t, top, lowerMode, "lower")
		w, err := openWritable(top+"/lower", openPath(t, top+"/dir"))
		if err != nil {
			t.Fatal(err)
		}
		for _, option := range strings.Split(w.data(), ",") {
			name, path, _ := strings.Cut(option, "=")
			at, err := os.Readlink(path)
			if want := top + "/dir/" + strings.TrimSuffix(name, "dir"); err != nil || at != want {
				t.Errorf("%s is at %s, error %v, want %s", name, at, err, want)
			}
		}
		w.close()
		if upper, work := modeOf(t, top+"/dir/upper"), modeOf(t, top+"/dir/work"); upper != 0o751|os.ModeSticky || work != 0o700 {
			t.Errorf("upper has mode %s, work %s", upper, work)
		}
	}
}

// Links that a container may have put in the places of an overlay's directories are not
// followed, and their targets do not change.
func TestOpenWritablePlanted(t *testing.T) {
	for _, name := range []string{upperName, workName} {
		for to, want := range map[string]error{
			"../outside": unix.ELOOP, "../nothing": unix.ELOOP, "/proc/self/cwd": unix.ELOOP, "other": unix.ELOOP, "": unix.ENOTDIR,
		} {
			top := t.TempDir()
			makeDirs(t, top, 0o755, "lower", "dir")
			makeDirs(t, top, 0o711, "outside", "dir/other")
			err := os.Symlink(to, filepath.Join(top, "dir", name))
			if to == "" {
				err = os.WriteFile(filepath.Join(top, "dir", name), nil, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
			w, err := openWritable(top+"/lower", openPath(t, top+"/dir"))
			if !errors.Is(err, want) || !strings.Contains(err.Error(), top+"/dir/"+name) {
				t.Errorf("%s to %q: error %v, want %v", name, to, err, want)
			}
			if err == nil {
				w.close()
			}
			for _, dir := range []string{"outside", "dir/other"} {
				entries, err := os.ReadDir(filepath.Join(top, dir))
				if mode := modeOf(t, filepath.Join(top, dir)); err != nil || len(entries) > 0 || mode != 0o711 {
					t.Errorf("%s to %q: %s has mode %s, %q in it, error %v", name, to, dir, mode, entries, err)
				}
			}
			if _, err := os.Lstat(top + "/nothing"); err == nil {
				t.Errorf("%s to %q: was made", name, to)
			}
		}
	}
}

// A directory inside of another overlay, which a container may have made, is refused.
func TestOpenOverlayDir(t *testing.T) {
	top := t.TempDir()
	makeDirs(t, top, 0o755, "a", "upper")
	makeDirs(t, top, 0o700, "a/b", "a/b/upper", "a/b/upper/c", "a/b/work/work", "a/uppermost", "upper/x")
	for path, want := range map[string]error{
		"a/b": nil, "a/uppermost": nil,
		"a/b/upper": unix.EINVAL, "a/b/upper/c": unix.EINVAL, "a/b/work/work": unix.EINVAL, "a/b/work/nothing": unix.EINVAL,
		"a": below.ErrNotAllowed, "upper": below.ErrNotAllowed, "a/nothing": unix.ENOENT,
	} {
		f, err := openOverlayDir([]string{top + "/a/"}, filepath.Join(top, path))
		if !errors.Is(err, want) || want == nil && err != nil {
			t.Errorf("%s: error %v, want %v", path, err, want)
		}
		_ = f.Close()
	}
	// The administrator's own directories may have any name.
	f, err := openOverlayDir([]string{top + "/upper"}, top+"/upper/x")
	if err != nil {
		t.Error(err)
	}
	_ = f.Close()
}
