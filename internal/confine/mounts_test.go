package confine

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// fakeMounts is a mount table. A mount hides earlier mounts at the same path and below
// it.
type fakeMounts struct {
	paths []string
	calls []string
	stuck string // path that cannot be unmounted
}

func (m *fakeMounts) list() ([]byte, error) {
	var table bytes.Buffer
	for i, p := range m.paths {
		fmt.Fprintf(&table, "%d 1 0:1 / %s rw - tmpfs none rw\n", i, strings.ReplaceAll(p, " ", `\040`))
	}
	return table.Bytes(), nil
}

// unmount removes the last mount at a path, and the later mounts below it.
func (m *fakeMounts) unmount(path string) error {
	m.calls = append(m.calls, path)
	last := -1
	for i, p := range m.paths {
		if p == path && p != m.stuck {
			last = i
		}
	}
	if last < 0 {
		return unix.EINVAL
	}
	kept := m.paths[:last:last]
	for _, p := range m.paths[last+1:] {
		if !strings.HasPrefix(p, path+"/") {
			kept = append(kept, p)
		}
	}
	m.paths = kept
	return nil
}

func TestDetachMounts(t *testing.T) {
	for _, tt := range []struct {
		name              string
		paths, kept, some []string
		stuck             string
	}{
		{
			name:  "usual",
			paths: []string{"/", "/proc", "/proc/sys/fs/binfmt_misc", "/sys", "/sys/fs/cgroup", "/dev", "/dev/pts", "/run", "/run/lock", "/run/ublk-loop", "/home", "/home/x y"},
			kept:  []string{"/", "/proc", "/sys", "/dev", "/run", "/run/ublk-loop"},
			some:  []string{"/home"},
		},
		{name: "nodes of a container", paths: []string{"/", "/dev", "/dev/ublkb0", "/dev/ublk-control", "/dev/zero"}, kept: []string{"/", "/dev", "/dev/ublkb0", "/dev/ublk-control"}},
		{name: "hidden", paths: []string{"/", "/mnt/a", "/mnt/b", "/mnt", "/mnt"}, kept: []string{"/"}},
		{name: "names that begin alike", paths: []string{"/", "/mnt", "/mnt2", "/mnt-3", "/mnt/4", "/running"}, kept: []string{"/"}},
		{name: "stuck", paths: []string{"/", "/a", "/b", "/c"}, kept: []string{"/", "/b"}, stuck: "/b"},
	} {
		m := &fakeMounts{paths: tt.paths, stuck: tt.stuck}
		if err := detachMounts(m.list, m.unmount); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		if !slices.Equal(m.paths, tt.kept) {
			t.Errorf("%s: left are %q, want %q", tt.name, m.paths, tt.kept)
		}
		for _, path := range m.calls {
			for _, parent := range tt.some {
				if strings.HasPrefix(path, parent+"/") {
					t.Errorf("%s: %s was unmounted after %s was", tt.name, path, parent)
				}
			}
		}
	}
}

func TestDetachMountsError(t *testing.T) {
	err := detachMounts(func() ([]byte, error) { return nil, os.ErrPermission }, nil)
	if !errors.Is(err, os.ErrPermission) {
		t.Errorf("error %v", err)
	}
}

func TestMountPoints(t *testing.T) {
	table := `22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:25 / /mnt/with\040space\134and\011more rw - tmpfs tmpfs rw
short line
29 22 0:24 /sub /a\043b rw master:3 - btrfs /dev/sdb rw,subvol=/sub
` + "31 22 0:26 / /no\u00a0break\rx rw - tmpfs tmpfs rw\n"
	want := []string{"/", "/a#b", "/mnt/with space\\and\tmore", "/no\u00a0break\rx"}
	if got := mountPoints([]byte(table)); !slices.Equal(got, want) {
		t.Errorf("mount points %q, want %q", got, want)
	}
}
