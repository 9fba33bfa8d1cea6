package oci

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/oci/below"
)

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
		{nil, "other/d.img", below.ErrNotAllowed, unix.EPERM},
		{[]string{}, "images/data/a.img", nil, unix.EPERM},
		{[]string{dir + "/images/data/"}, "images/data/a.img", nil, nil},
		{[]string{dir + "/other", dir + "/images/data"}, "images/data/a.img", nil, nil},
		{[]string{dir + "/images/data"}, "images/database/b.img", nil, unix.EPERM},
		{[]string{dir + "/images/data"}, "images/data/../c.img", unix.EINVAL, unix.EINVAL},
		{[]string{dir + "/images/data"}, "images/data//a.img", unix.EINVAL, unix.EINVAL},
		{[]string{dir + "/images/data"}, "images/c.img", nil, unix.EPERM},
		{[]string{dir + "/images/data"}, "images/data/c.img", unix.ELOOP, unix.ELOOP},
		{[]string{dir + "/images/data"}, "images/data/all/c.img", unix.ELOOP, unix.ELOOP},
		{[]string{dir + "/other"}, "other/d.img", below.ErrNotAllowed, below.ErrNotAllowed},
	} {
		s := &Settings{Lists: Lists{AllowedImages: []string{dir + "/images"}, WritableImages: tt.writable}}
		for value, want := range map[string]error{"ro": tt.readOnly, "rw": tt.written} {
			o, err := ParseOptions(value)
			if err != nil {
				t.Fatal(err)
			}
			f, err := s.OpenImage(dir+"/"+tt.path, &Disk{ReadOnly: o.ReadOnly()}, Requester{})
			if !errors.Is(err, want) || want == nil && err != nil {
				t.Errorf("%s of %s, with writable_images %q: error %v, want %v", value, tt.path, tt.writable, err, want)
			}
			_ = f.Close()
		}
	}
}
