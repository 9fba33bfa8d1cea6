package backing

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/mountpoint"
)

const mounts = `22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
36 22 0:98 /sub /mnt rw,noatime shared:1 master:2 - btrfs /dev/vdb rw,space_cache=v2
37 22 0:99 / /mnt/a\040-\040b rw - btrfs /dev/vdc rw
38 22 0:31 / /tmp rw shared:5 - tmpfs tmpfs rw
3 22 0:32 / /odd rw - btrfs
` + "39 22 0:97 / /x\u00a0y rw - btrfs /dev/mapper/x\u00a0y rw\n" +
	`40 22 0:96 / /z rw - btrfs /dev/mapper/x\134x20y rw` // udev writes a blank as \x20

func TestFindBtrfsSource(t *testing.T) {
	for id, want := range map[uint64]string{36: "/dev/vdb", 37: "/dev/vdc", 39: "/dev/mapper/x\u00a0y", 40: `/dev/mapper/x\x20y`, 22: "", 38: "", 3: "", 99: ""} {
		got, err := findBtrfsSource(strings.NewReader(mounts), id)
		if got != want || (want == "") != errors.Is(err, fs.ErrNotExist) {
			t.Errorf("mount %d: %q, error %v, want %q", id, got, err, want)
		}
	}
}

func FuzzFindBtrfsSource(f *testing.F) {
	f.Add(mounts, uint64(36))
	f.Add("36 - btrfs \n36 - btrfs x", uint64(36))
	f.Fuzz(func(t *testing.T, text string, id uint64) {
		source, err := findBtrfsSource(strings.NewReader(text), id)
		if err == nil && (source == "" || !strings.Contains(mountpoint.Unescape(text), source)) {
			t.Errorf("mount %d of %q has the source %q", id, text, source)
		}
	})
}

func TestAloneInBtrfs(t *testing.T) {
	s := newSysfs(t)
	s.disk("8:0", "devices/sda", map[string]string{"dev": "8:0"})
	s.disk("8:1", "devices/sdb", map[string]string{"dev": "8:1"})
	s.disk("8:2", "devices/sdc", map[string]string{"dev": "8:2"})
	for system, disks := range map[string][]string{"one": {"sda"}, "two": {"sdb", "sdc"}} {
		dir := filepath.Join(s.dir, "fs/btrfs", system, "devices")
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		for _, disk := range disks {
			if err := os.Symlink("../../../../devices/"+disk, filepath.Join(dir, disk)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for minor, want := range map[uint32]bool{0: true, 1: false, 2: false, 3: false} {
		if got := aloneInBtrfs(s.root(), unix.Mkdev(8, minor)); got != want {
			t.Errorf("disk 8:%d: %v, want %v", minor, got, want)
		}
	}
}
