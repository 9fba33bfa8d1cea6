package oci

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/oci/below"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
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
		{Requester{Handler: "runc", Owners: []uint32{root}}, "12", "1"},
		{Requester{Handler: "runc", Owners: []uint32{other}}, "12", "1"},
		{Requester{Handler: "runc-none", Owners: []uint32{root}}, "", ""},
		{Requester{Handler: "runc-read"}, "12", ""},
		{Requester{Handler: "runc-write", Owners: []uint32{other}}, "12", "12"},
		{Requester{Handler: "runc-narrow"}, "2", ""},
		{Requester{Handler: "runc", Owners: []uint32{anna}}, "23", "23"},
		{Requester{Handler: "runc-read", Owners: []uint32{anna}}, "23", ""},
		{Requester{Handler: "runc-write", Owners: []uint32{anna}}, "23", "2"},
		{Requester{Handler: "runc-narrow", Owners: []uint32{anna}}, "2", "2"},
		{Requester{Handler: "runc-none", Owners: []uint32{anna}}, "", ""},
		{Requester{Handler: "runc", Owners: []uint32{anna, other}}, "2", ""},
		{Requester{Handler: "runc-write", Owners: []uint32{other, anna}}, "2", "2"},
	} {
		for option, want := range map[string]string{"ro": tt.read, "rw": tt.write} {
			if got := s.opened(t, dir, option, tt.who); got != want {
				t.Errorf("handler %q, owner %v: %s opens %q, want %q", tt.who.Handler, tt.who.Owners, option, got, want)
			}
		}
	}
}

// The owners of a bundle are all who can change the bundle, or make its path lead elsewhere.
func TestBundleOwners(t *testing.T) {
	if os.Geteuid() == 0 {
		ublktest.NeedsOtherUsers(t)
	} else {
		b, _ := testBundle(t, "{}")
		if b == nil || !slices.Contains(b.owners, uint32(os.Geteuid())) {
			t.Errorf("%+v: not owned by this user", b)
		}
		return // only root can change the owner of a file
	}
	for _, tt := range []struct {
		parent, link, bundle, file int
		want                       []uint32
	}{
		{0, 0, 0, 0, []uint32{0}},
		{0, 0, 1000, 0, []uint32{1000}},
		{0, 0, 0, 1000, []uint32{1000}},
		{0, 0, 1000, 1001, []uint32{1000, 1001}},
		{1000, 0, 0, 0, []uint32{1000}},
		{0, 1000, 0, 0, []uint32{1000}},
		{1001, 1000, 1000, 0, []uint32{1001, 1000}},
	} {
		for _, config := range []bool{false, true} {
			b := ownedBundle(t, tt.parent, tt.link, tt.bundle, tt.file, config)
			if b == nil || !slices.Equal(b.owners, tt.want) {
				t.Errorf("%+v, by the name of the file: %v: owners %+v", tt, config, b)
			}
		}
	}
}

// ownedBundle opens a bundle by a link in a directory, which have owners.
func ownedBundle(t *testing.T, parent, link, bundle, file int, byFile bool) *bundle {
	t.Helper()
	top := t.TempDir()
	for _, err := range []error{
		os.Mkdir(top+"/parent", 0o755), os.Mkdir(top+"/bundle", 0o755), os.WriteFile(top+"/bundle/config.json", []byte("{}"), 0o600),
		os.Symlink("../parent/..//bundle", top+"/parent/link"),
		os.Lchown(top+"/parent", parent, 0), os.Lchown(top+"/parent/link", link, 0),
		os.Lchown(top+"/bundle", bundle, 0), os.Lchown(top+"/bundle/config.json", file, 0),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	// Without the link, .. would lead nowhere.
	c := &call{bundle: top + "/parent/link/../bundle"}
	if byFile {
		c = &call{bundle: "/nothing", config: top + "/parent/link/../bundle/config.json"}
	}
	b, _ := openBundle(c)
	if b != nil {
		t.Cleanup(b.close)
	}
	return b
}
