package oci

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/oci/below"
)

// listed makes three images in a directory, and returns settings with lists of them.
func listed(t *testing.T, dir string) *Settings {
	t.Helper()
	makeDirs(t, dir, 0o755, "all/a", "all/b", "mine")
	for _, f := range listedImages {
		if err := os.WriteFile(filepath.Join(dir, f), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	in := func(names ...string) []string {
		dirs := []string{}
		for _, name := range names {
			dirs = append(dirs, dir+"/"+name)
		}
		return dirs
	}
	return &Settings{
		Lists: Lists{AllowedImages: in("all"), WritableImages: in("all/a")},
		Handlers: map[string]Lists{
			"runc-none":   {AllowedImages: in(), WritableImages: in()},
			"runc-read":   {WritableImages: in()},
			"runc-write":  {WritableImages: in("all")},
			"runc-narrow": {AllowedImages: in("all/b")},
		},
		Owners: map[string]Lists{"0": {}, "1000": {AllowedImages: in("mine", "all/b"), WritableImages: in("mine", "all/b")}},
	}
}

var listedImages = []string{"all/a/1", "all/b/2", "mine/3"}

// opened returns the numbers of the images that a requester can open with an option.
func (s *Settings) opened(t *testing.T, dir, option string, who Requester) string {
	t.Helper()
	o, err := ParseOptions(option)
	if err != nil {
		t.Fatal(err)
	}
	numbers := ""
	for _, name := range listedImages {
		f, err := s.OpenImage(filepath.Join(dir, name), &Disk{ReadOnly: o.ReadOnly()}, who)
		switch {
		case err == nil:
			numbers += filepath.Base(name)
			_ = f.Close()
		case !errors.Is(err, below.ErrNotAllowed) && !errors.Is(err, unix.EPERM):
			t.Errorf("%s: error %v", name, err)
		}
	}
	return numbers
}

// An image must be in each list for its requester, or in the general list if there is
// none.
func TestListsOfRequesters(t *testing.T) {
	dir := t.TempDir()
	s := listed(t, dir)
	root, anna, other := uint32(0), uint32(1000), uint32(1001)
	for _, tt := range []struct {
		who         Requester
		read, write string // the images of 1, 2 and 3 that may be read and written
	}{
		{Requester{}, "12", "1"},
		{Requester{Handler: "runc", Owner: &root}, "12", "1"},
		{Requester{Handler: "runc", Owner: &other}, "12", "1"},
		{Requester{Handler: "runc-none", Owner: &root}, "", ""},
		{Requester{Handler: "runc-read"}, "12", ""},
		{Requester{Handler: "runc-write", Owner: &other}, "12", "12"},
		{Requester{Handler: "runc-narrow"}, "2", ""},
		{Requester{Handler: "runc", Owner: &anna}, "23", "23"},
		{Requester{Handler: "runc-read", Owner: &anna}, "23", ""},
		{Requester{Handler: "runc-write", Owner: &anna}, "23", "2"},
		{Requester{Handler: "runc-narrow", Owner: &anna}, "2", "2"},
		{Requester{Handler: "runc-none", Owner: &anna}, "", ""},
	} {
		for option, want := range map[string]string{"ro": tt.read, "rw": tt.write} {
			if got := s.opened(t, dir, option, tt.who); got != want {
				t.Errorf("handler %q, owner %v: %s opens %q, want %q", tt.who.Handler, tt.who.Owner, option, got, want)
			}
		}
	}
}

// The owner of a bundle is the user who can change the bundle.
func TestBundleOwner(t *testing.T) {
	type owners struct {
		dir, file int
		want      uint32
	}
	self := os.Geteuid()
	cases := []owners{{self, self, uint32(self)}}
	if self == 0 { // only root can change the owner of a file
		cases = append(cases, owners{1000, 0, 1000}, owners{0, 1000, 1000}, owners{1000, 1001, 1000})
	}
	for _, tt := range cases {
		dir := t.TempDir()
		path := filepath.Join(dir, "config.json")
		if err := errors.Join(os.WriteFile(path, []byte("{}"), 0o600), os.Chown(path, tt.file, 0), os.Chown(dir, tt.dir, 0)); err != nil {
			t.Fatal(err)
		}
		b := openBundle(&call{bundle: dir})
		if b == nil || b.owner != tt.want {
			t.Fatalf("directory of %d, file of %d: %+v, want owner %d", tt.dir, tt.file, b, tt.want)
		}
		b.close()
	}
}
