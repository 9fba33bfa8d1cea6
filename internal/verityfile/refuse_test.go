package verityfile

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/loop"
)

// treeOfImage returns what FindTree says about disk.raw.
func treeOfImage(t *testing.T, dir string) (string, error) {
	t.Helper()
	image, err := loop.OpenPath(filepath.Join(dir, "disk.raw"))
	if err != nil {
		t.Fatal(err)
	}
	defer image.Close()
	s, err := reopen(image)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	return FindTree(s.File, openForTest)
}

// Each sign of a tree is found, and an image without one has none.
func TestFindTree(t *testing.T) {
	check := func(dir, want string) {
		t.Helper()
		if got, err := treeOfImage(t, dir); err != nil || strings.TrimPrefix(got, dir+"/") != want {
			t.Errorf("%q, error %v, want %q", got, err, want)
		}
	}
	dir, _ := besideImage(t)
	check(dir, "a superblock at byte 153600")
	a := newPair(t, "a")
	tree := treeOf(a, 0)
	tree.kind = designators["s390x"][1].tree
	check(partitioned(t, dataOf(a, 0), tree), "partition "+textOf(tree.id))
	dir = partitioned(t, dataOf(a, 0))
	check(dir, "")
	for _, name := range []string{"disk.roothash", "disk.verity", "disk.raw.dmverity"} {
		path := filepath.Join(dir, name)
		write(t, path, nil)
		check(dir, name)
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/nothing", filepath.Join(dir, "disk.verity")); err != nil {
		t.Fatal(err)
	}
	if got, err := treeOfImage(t, dir); !errors.Is(err, unix.ELOOP) {
		t.Errorf("a link: %q, %v", got, err)
	}
	if err := os.Remove(filepath.Join(dir, "disk.verity")); err != nil {
		t.Fatal(err)
	}
	err := unix.Setxattr(filepath.Join(dir, "disk.raw"), rootAttribute, []byte("x"), 0)
	if errors.Is(err, unix.EOPNOTSUPP) {
		t.Skip("no extended attributes of users here")
	}
	if err != nil {
		t.Fatal(err)
	}
	check(dir, "attribute user.verity.roothash")
}

// If the partition table cannot be read, it is unknown whether the image has a tree.
func TestFindTreeInUnreadable(t *testing.T) {
	path, _ := newImage(t, 4099) // no tree can be behind such data, so that only the table is read
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if what, err := FindTree(file, openForTest); !errors.Is(err, unix.EBADF) {
		t.Errorf("%q, error %v", what, err)
	}
}
