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
		"images/a.img": nil, "images/sub/b.img": nil, "linked/a.img": nil, // a link of the administrator
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
	_, err = openImage([]string{fifo}, filepath.Join(fifo, "a.img"))
	var refused *os.PathError
	if !errors.Is(err, unix.ENOTDIR) || !errors.As(err, &refused) || refused.Path != fifo {
		t.Errorf("error %v, want ENOTDIR from the open of the directory", err)
	}
}

// WritableImages restricts writing to a part of the allowed images.
func TestOpenWritableImage(t *testing.T) {
	dir := t.TempDir()
	makeDirs(t, dir, 0o755, "images/data", "images/database", "other")
	for _, f := range []string{"images/data/a.img", "images/database/b.img", "images/c.img", "other/d.img"} {
		if err := os.WriteFile(filepath.Join(dir, f), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{"images/data/c.img": "../c.img", "images/data/all": ".."} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		writable []string
		path     string
		readOnly error // with the option ro
		written  error // with the option rw
	}{
		{nil, "images/c.img", nil, unix.EPERM}, // the default
		{nil, "other/d.img", errNotAllowed, unix.EPERM},
		{[]string{}, "images/data/a.img", nil, unix.EPERM},
		{[]string{dir + "/images/data/"}, "images/data/a.img", nil, nil},
		{[]string{dir + "/other", dir + "/images/data"}, "images/data/a.img", nil, nil},
		{[]string{dir + "/images/data"}, "images/database/b.img", nil, unix.EPERM},
		{[]string{dir + "/images/data"}, "images/data/../c.img", nil, unix.EPERM},
		{[]string{dir + "/images/data"}, "images/c.img", nil, unix.EPERM},
		{[]string{dir + "/images/data"}, "images/data/c.img", unix.ELOOP, unix.ELOOP},
		{[]string{dir + "/images/data"}, "images/data/all/c.img", unix.ELOOP, unix.ELOOP},
		{[]string{dir + "/other"}, "other/d.img", errNotAllowed, errNotAllowed},
	} {
		s := &Settings{Lists: Lists{AllowedImages: []string{dir + "/images"}, WritableImages: tt.writable}}
		for value, want := range map[string]error{"ro": tt.readOnly, "rw": tt.written} {
			o, err := ParseOptions(value)
			if err != nil {
				t.Fatal(err)
			}
			f, err := s.OpenImage(dir+"/"+tt.path, o, Requester{})
			if !errors.Is(err, want) || want == nil && err != nil {
				t.Errorf("%s of %s, with writable_images %q: error %v, want %v", value, tt.path, tt.writable, err, want)
			}
			_ = f.Close()
		}
	}
}
