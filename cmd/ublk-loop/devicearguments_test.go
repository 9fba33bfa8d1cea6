package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
)

func TestDeviceID(t *testing.T) {
	for _, tt := range []struct {
		arg string
		id  uint32
		ok  bool
	}{
		{"0", 0, true},
		{"7", 7, true},
		{"1048575", 1048575, true},
		{"1048576", 0, false},
		{"/dev/ublkb7", 7, true},
		{"/dev/ublkc7", 7, true},
		{"/dev//ublkb7/", 7, true},
		{"/dev/ublkb7p1", 0, false},
		{"/dev/ublkd7", 0, false},
		{"/dev/ublkb", 0, false},
		{"", 0, false},
		{"07", 0, false},
		{"-1", 0, false},
		{"+1", 0, false},
		{"1 ", 0, false},
		{"./7", 0, false},
		{"/dev/ublkb07", 0, false},
		{"/dev/ublkb-1", 0, false},
		{"ublkb7", 0, false},
		{"/tmp/ublkb7", 0, false},
		{"/dev/null", 0, false},
		{"/etc", 0, false},
	} {
		if id, ok := deviceID(tt.arg); id != tt.id || ok != tt.ok {
			t.Errorf("deviceID(%q) is %d, %v, want %d, %v", tt.arg, id, ok, tt.id, tt.ok)
		}
	}
}

// A device that was found by its file is acted on only if it is still the same one. A
// number means the device that has it now.
func TestIdentityOfTargets(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		args  []string
		found bool
	}{
		{[]string{"del", "1"}, false},
		{[]string{"del", "/dev/ublkb1"}, false},
		{[]string{"del", path}, true},
		{[]string{"del", "/former/path"}, true},
		{[]string{"del", "/former/path/of/table"}, true},
		{[]string{"del", "--all"}, true},
		{[]string{"resize", "1"}, false},
		{[]string{"resize", path}, true},
	} {
		b := newBench()
		b.drv.devices = []client.Device{{ID: 1, File: "/former/path", FileInode: st.Ino, DiskSequence: 8, Tag: 9}}
		b.drv.devices[0].Files = []client.DeviceFile{{File: "/former/path/of/table"}}
		b.check(t, tt.args, 0, "", "")
		want := []askedFor{{}}
		if tt.found {
			want = []askedFor{{8, 9}}
		}
		if !slices.Equal(b.drv.asked, want) {
			t.Errorf("%q acts on devices with sequence and tag %d, want %d", tt.args, b.drv.asked, want)
		}
	}
}
