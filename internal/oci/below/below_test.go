package below

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestOpenRegular(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{"images/sub", "imagesx", "outside"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{"images/a.img", "images/sub/b.img", "imagesx/c.img", "outside/d.img"} {
		if err := os.WriteFile(filepath.Join(dir, f), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{
		"images/in": "a.img", "images/out": "../outside/d.img", "images/dir": "../outside", "images/abs": "/etc/passwd",
		"images/fd": "/proc/self/fd", "linked": "images",
	} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mkfifo(filepath.Join(dir, "images/fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	allowed := []string{filepath.Join(dir, "images") + "/", filepath.Join(dir, "linked")}
	for path, want := range map[string]error{
		"images/a.img": nil, "images/sub/b.img": nil, "linked/a.img": nil, // a link of the administrator
		"imagesx/c.img": ErrNotAllowed, "outside/d.img": ErrNotAllowed, "images": ErrNotAllowed, "images/../outside/d.img": ErrNotAllowed,
		"images/in": unix.ELOOP, "images/out": unix.ELOOP, "images/dir/d.img": unix.ELOOP, "images/abs": unix.ELOOP, "images/fd/0": unix.ELOOP,
		"images/sub": unix.EINVAL, "images/fifo": unix.EINVAL,
		"images/nothing": unix.ENOENT, "images/a.img/x": unix.ENOTDIR,
	} {
		f, err := OpenRegular(allowed, filepath.Join(dir, path))
		if want == nil {
			want = err
			if err != nil || f.Name() != filepath.Join(dir, path) {
				t.Errorf("%s: error %v", path, err)
			}
		}
		if !errors.Is(err, want) {
			t.Errorf("%s: error %v, want %v", path, err, want)
		}
		if f != nil {
			_ = f.Close()
		}
	}
	if _, err := OpenRegular(nil, "/etc/passwd"); !errors.Is(err, ErrNotAllowed) {
		t.Errorf("with nothing allowed: error %v", err)
	}
}

// An allowed path that is no directory is refused without being opened, because the open of a
// FIFO waits, and that of a device can have an effect.
func TestAllowedDirectoryIsNone(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	other, err := os.OpenFile(fifo, os.O_RDWR, 0) // a wrong open does not wait
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	_, err = OpenRegular([]string{fifo}, filepath.Join(fifo, "a.img"))
	var refused *os.PathError
	if !errors.Is(err, unix.ENOTDIR) || !errors.As(err, &refused) || refused.Path != fifo {
		t.Errorf("error %v, want ENOTDIR from the open of the directory", err)
	}
}
