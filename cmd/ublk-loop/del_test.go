package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/loop"
)

func delBench() *bench {
	b := newBench()
	for id := range uint32(4) {
		b.drv.devices = append(b.drv.devices, client.Device{ID: id, FileInode: uint64(id % 2)})
	}
	return b
}

func TestDel(t *testing.T) {
	for _, tt := range []struct {
		args []string
		left []uint32
	}{
		{[]string{"1"}, []uint32{0, 2, 3}},
		{[]string{"/dev/ublkb1"}, []uint32{0, 2, 3}},
		{[]string{"/dev/ublkc1"}, []uint32{0, 2, 3}},
		{[]string{"//dev/./ublkc1"}, []uint32{0, 2, 3}},
		{[]string{"0", "/dev/ublkb3"}, []uint32{1, 2}},
		{[]string{"--all"}, []uint32{}},
		{[]string{"9"}, []uint32{0, 1, 2, 3}},
		{[]string{"/dev/ublkb9", "2"}, []uint32{0, 1, 3}},
	} {
		b := delBench()
		b.check(t, append([]string{"del"}, tt.args...), 0, "", "")
		if got := b.drv.ids(); !slices.Equal(got, tt.left) {
			t.Errorf("del %q leaves %v, want %v", tt.args, got, tt.left)
		}
		if len(b.drv.forced) > 0 || !b.drv.closed {
			t.Errorf("del %q: forced %v, closed %v", tt.args, b.drv.forced, b.drv.closed)
		}
	}
}

// del FILE removes all devices of a file.
func TestDelFile(t *testing.T) {
	b := delBench()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	b.check(t, []string{"del", path}, 0, "", "") // the file has no device
	b.drv.devices[1].FileInode = st.Ino
	b.drv.devices[2].FileInode = st.Ino
	b.check(t, []string{"del", path}, 0, "", "")
	if got := b.drv.ids(); !slices.Equal(got, []uint32{0, 3}) {
		t.Errorf("left are %v", got)
	}
}

// del continues after an error, and reports all errors.
// A file can have the path of another one, which has a device and is deleted. del leaves that device
// alone, and says so, because list shows the path with it.
func TestDelFormerPath(t *testing.T) {
	b := newBench()
	file := someFile(t)
	b.drv.devices = []client.Device{{ID: 7, Device: "/dev/ublkb7", State: "live", FileInode: 1, File: file}}
	b.check(t, []string{"del", file}, 0, "", "ublk-loop: warning: "+file+": /dev/ublkb7 has another file or disk, which had this path before, and stays\n")
	b.check(t, []string{"list", file}, 1, "", "ublk-loop: error: list "+file+": it has no device\nhint: /dev/ublkb7 has another file or disk, which had this path before\n")
	b.check(t, []string{"resize", file}, 1, "", "ublk-loop: error: resize "+file+": it has no device\nhint: /dev/ublkb7 has another file or disk, which had this path before\n")
}

func TestDelErrors(t *testing.T) {
	b := delBench()
	b.drv.refuse = map[uint32]error{
		0: fmt.Errorf("remove /dev/ublkb0: %w", loop.ErrInUse),
		1: unix.EIO,
		2: fmt.Errorf("remove /dev/ublkb2: %w", loop.ErrForeign),
	}
	want := "ublk-loop: error: remove /dev/ublkb1: input/output error\n" +
		"ublk-loop: error: remove /dev/ublkb2: not a device of ublk-loop\n" +
		"hint: remove it with the program that made it\n" +
		"ublk-loop: error: remove /dev/ublkb0: device is in use\n" +
		"hint: unmount it or end the processes that have it open; --force removes it anyway\n"
	b.check(t, []string{"del", "--all"}, 1, "", want)
	if got := b.drv.ids(); !slices.Equal(got, []uint32{0, 1, 2}) {
		t.Errorf("left are %v", got)
	}
	missing := "ublk-loop: error: open /nonexistent/x: no such file or directory\n"
	b.check(t, []string{"del", "/nonexistent/x", "0", "1", "2"}, 1, "", missing+want)
	b.check(t, []string{"del", "--force", "0"}, 0, "", "")
	if !slices.Equal(b.drv.forced, []uint32{0}) {
		t.Errorf("forced are %v", b.drv.forced)
	}
}

// A device that another one uses is removed after it. A device that stays keeps the one below.
func TestDelStack(t *testing.T) {
	b := delBench()
	b.drv.usedBy = map[uint32]uint32{0: 1, 1: 3}
	b.check(t, []string{"del", "0", "1", "2"}, 1, "",
		"ublk-loop: error: remove /dev/ublkb0: device is in use\nhint: unmount it or end the processes that have it open; --force removes it anyway\n"+
			"ublk-loop: error: remove /dev/ublkb1: device is in use\nhint: unmount it or end the processes that have it open; --force removes it anyway\n")
	if got := b.drv.ids(); !slices.Equal(got, []uint32{0, 1, 3}) {
		t.Errorf("left are %v", got)
	}
	b.check(t, []string{"del", "--all"}, 0, "", "")
	if got := b.drv.ids(); len(got) > 0 {
		t.Errorf("left are %v", got)
	}
}

// The name of a device without its directory is the path of a file. The hint has the device.
func TestDelName(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	b := delBench()
	b.check(t, []string{"del", "ublkb1"}, 1, "", "ublk-loop: error: open "+filepath.Join(dir, "ublkb1")+": no such file or directory\nhint: the device is /dev/ublkb1\n")
	b.check(t, []string{"list", "ublkb1"}, 1, "", "ublk-loop: error: open "+filepath.Join(dir, "ublkb1")+": no such file or directory\nhint: the device is /dev/ublkb1\n")
	if got := b.drv.ids(); len(got) != 4 {
		t.Errorf("left are %v", got)
	}
}

// Without a driver, no device exists, and del succeeds as for other devices that do not exist.
func TestDelWithoutDriver(t *testing.T) {
	b := newBench()
	b.drv = nil
	b.check(t, []string{"del", "0", "/dev/ublkb1"}, 0, "", "")
	b.check(t, []string{"del", "--force", "0"}, 0, "", "")
	b.check(t, []string{"del", someFile(t)}, 0, "", "")
	b.check(t, []string{"del", "/nonexistent/x"}, 1, "", "ublk-loop: error: open /nonexistent/x: no such file or directory\n")
	b.check(t, []string{"del", "--all"}, 0, "", "")
}

func TestDelUsage(t *testing.T) {
	b := newBench()
	want := "ublk-loop: error: del: give either devices or --all\nhint: see ublk-loop del --help\n"
	b.check(t, []string{"del"}, 2, "", want)
	b.check(t, []string{"del", "--all", "0"}, 2, "", want)
	b.check(t, []string{"del", "--force"}, 2, "", want)
	b.check(t, []string{"del", "--forced", "0"}, 2, "", "ublk-loop: error: unknown flag: --forced\nhint: see ublk-loop del --help\n")
}
