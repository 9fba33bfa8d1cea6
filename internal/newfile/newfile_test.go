package newfile

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

func entries(t *testing.T, dir string) (names []string) {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names
}

// A file has no name before Link and after Unlink, and has its path in between, also if the
// directory was reached by a link and was moved.
func TestFile(t *testing.T) {
	dir := t.TempDir()
	real := filepath.Join(dir, "real")
	if err := errors.Join(os.Mkdir(real, 0o700), os.Symlink(real, filepath.Join(dir, "link"))); err != nil {
		t.Fatal(err)
	}
	f, err := Create(filepath.Join(dir, "link", "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if f.File.Name() != filepath.Join(real, "file") {
		t.Errorf("name %s", f.File.Name())
	}
	if names := entries(t, real); len(names) != 0 {
		t.Fatalf("%q before Link", names)
	}
	moved := filepath.Join(dir, "moved")
	if err := os.Rename(real, moved); err != nil {
		t.Fatal(err)
	}
	if err := f.Link(); err != nil {
		t.Fatal(err)
	}
	is, err := f.File.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if there, err := os.Stat(filepath.Join(moved, "file")); err != nil || !os.SameFile(is, there) {
		t.Fatalf("%v, error %v", there, err)
	}
	if err := f.Link(); !errors.Is(err, unix.EEXIST) {
		t.Errorf("a second Link returns %v", err)
	}
	if err := f.Unlink(); err != nil {
		t.Fatal(err)
	}
	if names := entries(t, moved); len(names) != 0 {
		t.Errorf("%q after Unlink", names)
	}
}

// Another file with the name stays.
func TestOtherFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	f, err := Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := os.WriteFile(path, []byte("other"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := f.Link(); !errors.Is(err, unix.EEXIST) {
		t.Errorf("Link returns %v", err)
	}
	if err := errors.Join(f.Unlink(), f.Remove()); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "other" {
		t.Errorf("%q, error %v", text, err)
	}
	if _, err := Create(path); !errors.Is(err, unix.EEXIST) {
		t.Errorf("Create returns %v", err)
	}
}

// Replace replaces the contents of a file, and writes its name to disk, here in a
// directory in which that fails. It takes other files than regular ones.
func TestReplace(t *testing.T) {
	ublktest.ObeyModes(t)
	replace := func(path, text string) error {
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		return errors.Join(Replace(f, []byte(text)), f.Close())
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	for _, text := range []string{"a long text", "text"} {
		if err := replace(path, text); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != text {
			t.Errorf("%q, error %v, want %q", got, err, text)
		}
	}
	if err := replace("/dev/null", "text"); err != nil {
		t.Error(err)
	}
	if err := os.Chmod(dir, 0o333); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Chmod(dir, 0o700) }) // so that it can be removed
	if err := replace(path, ""); !errors.Is(err, unix.EACCES) {
		t.Errorf("error %v", err)
	}
}

// A path that cannot be that of a file is refused. filepath.Base would give another one.
func TestCreateWithoutName(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.Mkdir("x", 0o700); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"": `create "": no such file or directory`, "x/": "create x/: is a directory", "./": "create ./: is a directory", "y/": "create y/: is a directory",
	} {
		if _, err := Create(path); err == nil || err.Error() != want {
			t.Errorf("%q: error %v, want %s", path, err, want)
		}
	}
}
