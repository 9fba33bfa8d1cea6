package identity

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestOf(t *testing.T) {
	dir := t.TempDir()
	open := func(name string) *os.File {
		t.Helper()
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Close() })
		return f
	}
	a, err := Of(open("a"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(dir, "a"), filepath.Join(dir, "b")); err != nil {
		t.Fatal(err)
	}
	b, err := Of(open("b"))
	if err != nil || !a.Is(b) {
		t.Errorf("renamed it is %+v, was %+v, error %v", b, a, err)
	}
	c, err := Of(open("c"))
	if err != nil || a.Is(c) || a.HasNumbersOf(c) {
		t.Errorf("another file is %+v, like %+v, error %v", c, a, err)
	}
}

func TestIs(t *testing.T) {
	file := File{Device: "8:1", Inode: 2, Birth: 3}
	disk := File{IsDisk: true, Device: "8:1"}
	for _, tt := range []struct {
		name        string
		a, b        File
		numbers, is bool
	}{
		{"itself", file, file, true, true},
		{"another inode", file, File{Device: "8:1", Inode: 3, Birth: 3}, false, false},
		{"another file system", file, File{Device: "8:2", Inode: 2, Birth: 3}, false, false},
		{"a later file with the inode", file, File{Device: "8:1", Inode: 2, Birth: 4}, true, false},
		{"a birth that is not known", file, File{Device: "8:1", Inode: 2}, true, false},
		{"a disk itself", disk, File{IsDisk: true, Device: "8:1", Inode: 9, Birth: 9}, true, true},
		{"the disk below the file system", file, disk, false, false},
		{"neither file nor disk", FromStat(&unix.Stat_t{Mode: unix.S_IFIFO}), FromStat(&unix.Stat_t{Mode: unix.S_IFIFO}), false, false},
	} {
		if tt.a.HasNumbersOf(tt.b) != tt.numbers || tt.b.HasNumbersOf(tt.a) != tt.numbers || tt.a.Is(tt.b) != tt.is || tt.b.Is(tt.a) != tt.is {
			t.Errorf("%s: numbers %v, is %v", tt.name, tt.a.HasNumbersOf(tt.b), tt.a.Is(tt.b))
		}
	}
}
