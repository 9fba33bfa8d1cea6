package mounts

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	const text = `22 1 0:20 / / rw,relatime shared:1 - rootfs rootfs rw
30 22 259:3 / /var/lib/a\040b ro,noatime shared:5 master:2 - ext4 /dev/ublkb3 rw
31 22 0:5 /ublkb1 /dev/block rw - devtmpfs devtmpfs rw
32 22 259:4 / /var/lib/a\040b rw - xfs /dev/ublkb4 rw
`
	table, err := parse(text)
	if err != nil || len(table) != 4 {
		t.Fatalf("%+v, error %v", table, err)
	}
	if m := table[1]; m.Target != "/var/lib/a b" || !m.ReadOnly || m.MajMin != "259:3" || m.FSType != "ext4" {
		t.Errorf("%+v", m)
	}
	if m := table.At("/var/lib/a b"); m == nil || m.MajMin != "259:4" || m.ReadOnly {
		t.Errorf("the topmost mount is %+v", m)
	}
	if m := table.At("/var/lib"); m != nil {
		t.Errorf("%+v", m)
	}
	if m := table.At("/dev/block"); m == nil || m.Root != "/ublkb1" {
		t.Errorf("%+v", m)
	}
	for _, bad := range []string{"x\n", "22 1 0:20 / /\n", "22 1 0:20 / / rw - \n"} {
		if _, err := parse(bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

// A mount is read with the names that it has, whatever characters these have. The kernel escapes some of them (mangle in
// fs/proc_namespace.c).
func FuzzParse(f *testing.F) {
	f.Add("sub", "var/lib/a b", true)
	f.Add("", "no\u00a0break\r - \\040#\v\n", false)
	escapes := strings.NewReplacer(" ", `\040`, "\t", `\011`, "\n", `\012`, `\`, `\134`, "#", `\043`)
	f.Fuzz(func(t *testing.T, root, target string, readOnly bool) {
		root, target = "/"+root, "/"+target
		options := "rw,noatime"
		if readOnly {
			options = "ro"
		}
		line := fmt.Sprintf("30 22 259:3 %s %s %s shared:5 - ext4 /dev/ublkb3 rw\n", escapes.Replace(root), escapes.Replace(target), options)
		table, err := parse(line + line)
		want := Mount{MajMin: "259:3", Root: root, Target: target, ReadOnly: readOnly, FSType: "ext4"}
		if err != nil || len(table) != 2 || table[0] != want || table[1] != want {
			t.Errorf("%q is %+v, error %v", line, table, err)
		}
		_, _ = parse(root + target) // an error, or no mount
	})
}

// Only a disk that is zero at both ends is blank, and an unreadable one is an error.
func TestIsBlank(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk")
	const size = 4 << 20
	for at, want := range map[int64]bool{-1: true, 0: false, endBytes - 1: false, 2 << 20: true, size - 1: false, size - endBytes: false} {
		data := make([]byte, size)
		if at >= 0 {
			data[at] = 1
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		if blank, err := IsBlank(t.Context(), f, 0, size); blank != want || err != nil {
			t.Errorf("a byte at %d: %v, error %v", at, blank, err)
		}
		if _, err := IsBlank(t.Context(), f, 0, size+1); err == nil && want {
			t.Error("a disk that ends too early is no error")
		}
		_ = f.Close()
	}
}

// silent is a disk that does not answer.
type silent struct{ end chan struct{} }

func (s silent) ReadAt([]byte, int64) (int, error) {
	<-s.end
	return 0, os.ErrClosed
}

// A disk that does not answer is not waited for longer than the context allows.
func TestIsBlankOfSilentDisk(t *testing.T) {
	disk := silent{make(chan struct{})}
	defer close(disk.end)
	ctx, giveUp := context.WithCancel(t.Context())
	giveUp()
	if _, err := IsBlank(ctx, disk, 0, endBytes); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

// A target with data of others stays.
func TestRemoveTarget(t *testing.T) {
	dir := t.TempDir()
	full, empty := filepath.Join(dir, "full"), filepath.Join(dir, "empty")
	if err := os.WriteFile(full, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := RemoveTarget(full); err == nil {
		t.Error("a file with data is removed")
	}
	if err := RemoveTarget(dir); err == nil {
		t.Error("a directory with files is removed")
	}
	for _, isFile := range []bool{true, false} {
		if err := MakeTarget(empty, isFile); err != nil {
			t.Fatal(err)
		}
		if err := MakeTarget(empty, isFile); err != nil {
			t.Errorf("again: %v", err)
		}
		for range 2 {
			if err := RemoveTarget(empty); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestIsReadOnly(t *testing.T) {
	for _, tt := range []struct {
		options []string
		want    bool
	}{
		{nil, false},
		{[]string{"noatime"}, false},
		{[]string{"ro"}, true},
		{[]string{"noatime,ro"}, true},
		{[]string{"ro", "noatime"}, true},
		{[]string{"ro", "rw"}, false},
		{[]string{"errors=remount-ro"}, false},
	} {
		if got := IsReadOnly(tt.options); got != tt.want {
			t.Errorf("%q: %v", tt.options, got)
		}
	}
}
