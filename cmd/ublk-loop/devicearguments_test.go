package main

import (
	"os"
	"path/filepath"
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
func TestSequenceOfTargets(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		args []string
		want uint64 // 0 for any
	}{
		{[]string{"del", "1"}, 0},
		{[]string{"del", "/dev/ublkb1"}, 0},
		{[]string{"del", path}, 8},
		{[]string{"del", "/former/path"}, 8},
		{[]string{"del", "/former/path/of/table"}, 8},
		{[]string{"del", "--all"}, 8},
		{[]string{"resize", "1"}, 0},
		{[]string{"resize", path}, 8},
	} {
		b := newBench()
		b.drv.devices = []client.Device{{ID: 1, File: "/former/path", FileInode: st.Ino, DiskSequence: 8}}
		b.drv.devices[0].Files = []client.DeviceFile{{File: "/former/path/of/table"}}
		b.check(t, tt.args, 0, "", "")
		asked := uint64(0)
		if len(b.drv.asked) == 1 && b.drv.asked[0] != nil {
			asked = *b.drv.asked[0]
		}
		if len(b.drv.asked) != 1 || asked != tt.want {
			t.Errorf("%q acts on %d devices, the last with sequence %d, want %d", tt.args, len(b.drv.asked), asked, tt.want)
		}
	}
}
