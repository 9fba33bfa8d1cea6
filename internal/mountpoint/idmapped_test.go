package mountpoint

import (
	"errors"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// No mount of a machine with tests is idmapped. TestKernelOCIIdmappedRoot makes one.
func TestIsIdmapped(t *testing.T) {
	if is, err := IsIdmapped("/proc"); is || err != nil {
		t.Errorf("/proc: %v, error %v", is, err)
	}
	if _, err := IsIdmapped("/proc/nothing"); !errors.Is(err, unix.ENOENT) {
		t.Errorf("error %v, want ENOENT", err)
	}
}

func TestOptionsOf(t *testing.T) {
	const mountinfo = "12 1 8:1 / / rw,noatime - ext4 /dev/sda1 rw\n112 12 0:40 / /idmapped ro,relatime,idmapped shared:7 - tmpfs tmpfs rw\n" +
		"113 12 0:40 / /no\u00a0break\rx ro,idmapped - tmpfs tmpfs rw\n"
	for id, want := range map[uint64][]string{12: {"rw", "noatime"}, 112: {"ro", "relatime", "idmapped"}, 113: {"ro", "idmapped"}} {
		if got, err := optionsOf(mountinfo, id); err != nil || !slices.Equal(got, want) {
			t.Errorf("%d: %q, error %v, want %q", id, got, err, want)
		}
	}
	if _, err := optionsOf(mountinfo, 2); !errors.Is(err, unix.ENODATA) {
		t.Errorf("error %v, want ENODATA", err)
	}
}
