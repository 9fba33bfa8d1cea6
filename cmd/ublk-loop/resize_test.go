package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/ublk"
)

func TestResize(t *testing.T) {
	for _, tt := range []struct {
		args []string
		id   uint32
		size uint64
	}{
		{[]string{"1"}, 1, 0},
		{[]string{"/dev/ublkb2"}, 2, 0},
		{[]string{"/dev/ublkc2", "3G"}, 2, 3 << 30},
		{[]string{"0", "512"}, 0, 512},
		{[]string{"0", "1MB"}, 0, 1000000},
	} {
		b := delBench()
		b.check(t, append([]string{"resize"}, tt.args...), 0, "", "")
		want := []resized{{tt.id, tt.size}}
		if !slices.Equal(b.drv.resized, want) || !b.drv.closed {
			t.Errorf("resize %q: %v, want %v; closed: %v", tt.args, b.drv.resized, want, b.drv.closed)
		}
	}
}

// resize FILE resizes all devices of a file, and continues after an error.
func TestResizeFile(t *testing.T) {
	b := delBench()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	b.check(t, []string{"resize", path}, 1, "", fmt.Sprintf("ublk-loop: error: resize %s: it has no device\nhint: ublk-loop list shows all devices with their files\n", path))
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	b.drv.devices[1].FileInode, b.drv.devices[3].FileInode = st.Ino, st.Ino
	b.drv.refuse = map[uint32]error{1: unix.EIO}
	b.check(t, []string{"resize", path, "1K"}, 1, "", "ublk-loop: error: resize /dev/ublkb1: input/output error\n")
	if want := []resized{{3, 1024}}; !slices.Equal(b.drv.resized, want) {
		t.Errorf("resized %v, want %v", b.drv.resized, want)
	}
	b.check(t, []string{"resize", "/nonexistent/x"}, 1, "", "ublk-loop: error: open /nonexistent/x: no such file or directory\n")
}

func TestResizeErrors(t *testing.T) {
	b := delBench()
	const help = "hint: see ublk-loop resize --help\n"
	for _, tt := range []struct {
		args []string
		want string
	}{
		{nil, "ublk-loop: error: resize: DEVICE is missing\n" + help},
		{[]string{"0", "1", "2"}, "ublk-loop: error: resize: unexpected argument \"2\"\n" + help},
		{[]string{"0", "1x"}, "ublk-loop: error: resize: size \"1x\": unknown unit \"x\"\n" + help},
		{[]string{"0", "0"}, "ublk-loop: error: resize: size \"0\": a device has at least one sector\n" + help},
		{[]string{"0", ""}, "ublk-loop: error: resize: size \"\": empty\n" + help},
	} {
		b.check(t, append([]string{"resize"}, tt.args...), 2, "", tt.want)
	}
	if len(b.drv.resized) > 0 {
		t.Errorf("resized %v", b.drv.resized)
	}
	b.drv.refuse = map[uint32]error{
		2: &hint.Error{Err: fmt.Errorf("resize /dev/ublkb2: %w", ublk.ErrNotSupported), Hint: "what to do"},
	}
	b.check(t, []string{"resize", "2"}, 1, "",
		"ublk-loop: error: resize /dev/ublkb2: not supported by this kernel\nhint: what to do\n")
	b.drv = nil
	b.check(t, []string{"resize", "0"}, 1, "", "ublk-loop: error: open /dev/ublk-control: the ublk driver is not loaded\n"+
		"hint: add and serve load it as root, and so does modprobe ublk_drv\n")
}
