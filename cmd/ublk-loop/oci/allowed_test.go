package oci

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestOpenImage(t *testing.T) {
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
		"images/a.img": nil, "images/sub/b.img": nil, "linked/a.img": nil, // the administrator's own link
		"imagesx/c.img": errNotAllowed, "outside/d.img": errNotAllowed, "images": errNotAllowed, "images/../outside/d.img": errNotAllowed,
		"images/in": unix.ELOOP, "images/out": unix.ELOOP, "images/dir/d.img": unix.ELOOP, "images/abs": unix.ELOOP, "images/fd/0": unix.ELOOP,
		"images/sub": unix.EINVAL, "images/fifo": unix.EINVAL,
		"images/nothing": unix.ENOENT, "images/a.img/x": unix.ENOTDIR,
	} {
		f, err := openImage(allowed, filepath.Join(dir, path))
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
	if _, err := openImage(nil, "/etc/passwd"); !errors.Is(err, errNotAllowed) {
		t.Errorf("with nothing allowed: error %v", err)
	}
}
