package identity

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestDiskIs(t *testing.T) {
	disk, part := Disk{Sequence: 3}, Disk{Sequence: 3, Start: 8, Size: 16}
	mapped := Disk{Sequence: 5, Name: "home", UUID: "LVM-1"}
	for name, tt := range map[string]struct {
		now, was Disk
		is       bool
	}{
		"itself":                            {disk, disk, true},
		"bound to another file":             {Disk{Sequence: 4}, disk, false},
		"known by its number only":          {disk, Disk{}, true},
		"nothing can be asked":              {Disk{}, disk, true},
		"the partition itself":              {part, part, true},
		"a partition of another disk":       {Disk{Sequence: 4, Start: 8, Size: 16}, part, false},
		"a partition that starts later":     {Disk{Sequence: 3, Start: 9, Size: 16}, part, false},
		"a partition that has grown":        {Disk{Sequence: 3, Start: 8, Size: 17}, part, true},
		"a partition that has shrunk":       {Disk{Sequence: 3, Start: 8, Size: 15}, part, false},
		"the disk of the partition":         {disk, part, false},
		"a partition of the disk":           {part, disk, false},
		"a volume activated again":          {Disk{Sequence: 6, Name: "home", UUID: "LVM-1"}, mapped, true},
		"a volume renamed":                  {Disk{Sequence: 5, Name: "old", UUID: "LVM-1"}, mapped, true},
		"a volume of another name":          {Disk{Sequence: 6, Name: "old", UUID: "LVM-1"}, mapped, false},
		"a volume of another UUID":          {Disk{Sequence: 6, Name: "home", UUID: "LVM-2"}, mapped, false},
		"a mapping of the name, no UUID":    {Disk{Sequence: 6, Name: "home"}, Disk{Sequence: 5, Name: "home"}, false},
		"the mapping without a UUID itself": {Disk{Sequence: 5, Name: "home"}, Disk{Sequence: 5, Name: "home"}, true},
	} {
		if got := tt.now.is(tt.was); got != tt.is {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// A disk's sequence number counts more than its number.
func TestIsByDisk(t *testing.T) {
	disk := File{IsDisk: true, Device: "7:0", Disk: Disk{Sequence: 3}}
	file := File{Device: "7:0", Inode: 12, Birth: 5, Disk: Disk{Sequence: 3}}
	for name, tt := range map[string]struct {
		now, was File
		is       bool
	}{
		"a disk with another number":          {File{IsDisk: true, Device: "7:1", Disk: Disk{Sequence: 3}}, disk, true},
		"another disk with the number":        {File{IsDisk: true, Device: "7:0", Disk: Disk{Sequence: 4}}, disk, false},
		"a disk with the number, all we know": {File{IsDisk: true, Device: "7:0"}, disk, true},
		"a disk with another number, unknown": {File{IsDisk: true, Device: "7:1"}, disk, false},
		"the file":                            {file, file, true},
		"the file on a copy of its disk":      {File{Device: "7:0", Inode: 12, Birth: 5, Disk: Disk{Sequence: 4}}, file, false},
		"another file there":                  {File{Device: "7:0", Inode: 13, Birth: 5, Disk: Disk{Sequence: 3}}, file, false},
		"a later file there with its inode":   {File{Device: "7:0", Inode: 12, Birth: 6, Disk: Disk{Sequence: 3}}, file, false},
		"the disk that the file system is on": {disk, file, false},
		"a file of which the state says less": {file, File{Device: "7:0", Inode: 12, Birth: 5}, true},
	} {
		if got := tt.now.Is(tt.was); got != tt.is {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// sysfs makes a tree with a disk, its partition and a device-mapper device.
func sysfs(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range map[string]string{
		"devices/sda/diskseq": "7\n", "devices/sda/sda1/partition": "1\n", "devices/sda/sda1/start": "2048\n", "devices/sda/sda1/size": "4096\n",
		"devices/dm-0/diskseq": "9\n", "devices/dm-0/dm/name": "home\n", "devices/dm-0/dm/uuid": "LVM-1\n",
		"devices/bad/diskseq": "seven\n",
	} {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(root, "dev/block"), 0o700); err != nil {
		t.Fatal(err)
	}
	for number, target := range map[string]string{"8:0": "sda", "8:1": "sda/sda1", "254:0": "dm-0", "9:9": "bad"} {
		if err := os.Symlink("../../devices/"+target, filepath.Join(root, "dev/block", number)); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestDiskNumbered(t *testing.T) {
	root := sysfs(t)
	for dev, want := range map[uint64]Disk{
		unix.Mkdev(8, 0):   {Sequence: 7},
		unix.Mkdev(8, 1):   {Sequence: 7, Start: 2048, Size: 4096},
		unix.Mkdev(254, 0): {Sequence: 9, Name: "home", UUID: "LVM-1"},
		unix.Mkdev(8, 2):   {},
	} {
		if got, err := diskNumbered(root, dev); err != nil || got != want {
			t.Errorf("%s: %+v, error %v, want %+v", MajMin(dev), got, err, want)
		}
	}
	if got, err := diskNumbered(root, unix.Mkdev(9, 9)); err == nil {
		t.Errorf("a sequence that is no number: %+v", got)
	}
}
