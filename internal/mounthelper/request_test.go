package mounthelper

import (
	"bytes"
	"errors"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/internal/keysource"
	"github.com/ublk-loop/ublk-loop/loop"
)

func TestParse(t *testing.T) {
	for args, want := range map[string]struct {
		command string
		config  loop.Config
	}{
		"/i /d -o rw": {"-o rw -- /dev/x /d", loop.Config{}},
		"/i /d":       {"-- /dev/x /d", loop.Config{}},
		"/i /d -v -n -o ro,noatime,ublk.offset=1M": {"-v -n -o ro,noatime -- /dev/x /d", loop.Config{ReadOnly: true, Offset: 1 << 20}},
		"/i /d -o ublk.sizelimit=4096,ublk.sector-size=4096,ublk.direct-io=on,ublk.zero-copy=off,ublk.fstype=xfs,ublk.shared,ublk.partscan,ublk.ref=me": {
			"-t xfs -- /dev/x /d",
			loop.Config{SizeLimit: 4096, SectorSize: 4096, DirectIO: loop.SwitchOn, ZeroCopy: loop.SwitchOff, Shared: true, PartScan: true, Ref: "me"},
		},
		"/i /d -t ublk-loop.ext4 -o rw": {"-t ext4 -o rw -- /dev/x /d", loop.Config{}},
		"/i /d -N /proc/7/ns/mnt -o rw": {"-N /proc/7/ns/mnt -o rw -- /dev/x /d", loop.Config{}},
		"/i /d -o rw,nofail,_netdev":    {"-o rw,nofail,_netdev -- /dev/x /d", loop.Config{}},
		"/i /d -o ublk.transfer=xor,ublk.key-file=/k,ublk.iv-offset=8,ublk.allow-discards": {
			"-- /dev/x /d", loop.Config{Transfer: loop.TransferConfig{Name: "xor", IVOffset: 8, AllowDiscards: true}},
		},
	} {
		r, err := parse(strings.Fields(args))
		if err != nil {
			t.Errorf("%s: %v", args, err)
			continue
		}
		if got := r.command("/dev/x"); !slices.Equal(got, strings.Fields(want.command)) || r.config != want.config || r.image != "/i" || r.dir != "/d" {
			t.Errorf("%s: %q, %+v; want %q, %+v", args, got, r.config, want.command, want.config)
		}
	}
	for args, want := range map[string]string{
		"/i /d -v -o remount,ro,ublk.offset=1M":           "-v -i -o remount,ro -- none /d",
		"/i /d -N /proc/7/fd/4 -o ublk.luks,remount,sync": "-i -N /proc/7/fd/4 -o remount,sync -- none /d",
	} {
		r, err := parse(strings.Fields(args))
		if err != nil || !r.remount || strings.Join(r.again(), " ") != want {
			t.Errorf("%s: %+v, error %v", args, r, err)
		}
	}
	r, err := parse(strings.Fields("/i /d -o ublk.luks,ublk.key-description=disk"))
	if err != nil || !r.luks || r.key.Kind != keysource.Keyring || r.key.Description != "disk" {
		t.Errorf("LUKS: %+v, error %v", r, err)
	}
}

// libmount has double quotes around a value with a comma.
func TestParseQuoted(t *testing.T) {
	r, err := parse([]string{"/i", "/d", "-o", `ublk.luks,ublk.key-file="/k,ro,y",context="a:b,c",ublk.ref="x",noexec`})
	if err != nil {
		t.Fatal(err)
	}
	if r.key.File != "/k,ro,y" || r.config.Ref != "x" || r.config.ReadOnly || !slices.Equal(r.options, []string{`context="a:b,c"`, "noexec"}) {
		t.Errorf("%+v", r)
	}
}

func TestParseRefuses(t *testing.T) {
	for args, want := range map[string]string{
		"": "needs an image", "/i": "needs an image", "/i /d -x": `unexpected argument "-x"`, "/i /d -o": `unexpected argument "-o"`,
		"/i /d -o ublk.offset=x": "option ublk.offset=x: not a number", "/i /d -o ublk.sector-size=3": "not 512", "/i /d -o offset=1": "use ublk.offset", "/i /d -o loop": "leave it out",
		"/i /d -o ublk.key-file=/a,ublk.key-file=/b": "another key", "/i /d -o ublk.luks,ublk.key-file=-": "not the path", "/i /d -o ublk.luks,ublk.transfer=xor,ublk.key-file=/k": "the header defines",
		"/dev/loop0 /d": "mount(8) has made a loop device", "/dev/loop12 /d -o rw": "/dev/loop12",
	} {
		_, err := parse(strings.Fields(args))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %q", args, err, want)
		}
	}
	var h *hint.Error
	if _, err := parse([]string{"/dev/loop0", "/d"}); !errors.As(err, &h) || !strings.Contains(h.Hint, "ublk.offset") {
		t.Errorf("a loop device: hint %+v", h)
	}
	if _, err := parse([]string{"/i", "/d", "-o", "ublk.readonly"}); !errors.As(err, &h) || !strings.Contains(h.Hint, "ublk.allow-discards, ublk.direct-io, ") {
		t.Errorf("an unknown option: hint %+v", h)
	}
}

func TestRunWithoutMount(t *testing.T) {
	var out bytes.Buffer
	h := &Helper{Err: &out}
	if status := h.Run(t.Context(), []string{"/i", "/d", "-f"}); status != 0 || out.Len() > 0 {
		t.Errorf("-f: exit status %d, %q", status, &out)
	}
	if status := h.Run(t.Context(), []string{"/i"}); status != 1 || out.String() != "mount.ublk-loop: needs an image and a directory\nhint: "+hintUsage+"\n" {
		t.Errorf("without a directory: exit status %d, %q", status, &out)
	}
}

// A mount takes the device that has the same part of the image.
func TestExisting(t *testing.T) {
	device := func(offset, limit uint64, change func(*client.Device)) []client.Device {
		d := client.Device{Device: "/dev/ublkb3", State: "live", MajMin: "259:3", File: "/i", Offset: offset, SizeLimit: limit, Transfer: client.Transfer{Name: "none"}}
		if change != nil {
			change(&d)
		}
		return []client.Device{{Device: "/dev/ublkb2", State: "dead", File: "/i"}, d}
	}
	readOnly := func(d *client.Device) { d.ReadOnly = true }
	encrypted := func(d *client.Device) { d.Transfer = client.Transfer{Name: "aes-xts-plain64", IVOffset: 8} }
	luks := func(d *client.Device) {
		d.Transfer = client.Transfer{Name: "aes-xts-plain64", LUKS: 2, LUKSOffset: 512}
	}
	for _, tt := range []struct {
		name, options string
		have          []client.Device
		found         bool
		refused       string
	}{
		{"the same", "rw", device(0, 0, nil), true, ""},
		{"the same part", "ublk.offset=1K,ublk.sizelimit=512", device(1024, 512, nil), true, ""},
		{"none", "rw", nil, false, ""},
		{"a dead one", "rw", device(0, 0, nil)[:1], false, ""},
		{"another part", "ublk.offset=1K", device(0, 1024, nil), false, ""},
		{"the part before", "ublk.sizelimit=1K", device(1024, 0, nil), false, ""},
		{"an overlap", "ublk.offset=1K", device(0, 1536, nil), false, "overlaps"},
		{"an overlap of the rest", "ublk.offset=1M", device(0, 0, nil), false, "overlaps"},
		{"an overlap of readers", "ro,ublk.offset=1K", device(0, 0, readOnly), false, ""},
		{"a read-only one", "rw", device(0, 0, readOnly), true, ""},
		{"a reader's", "ro", device(0, 0, readOnly), true, ""},
		{"a writer's for a reader", "ro", device(0, 0, nil), true, ""},
		{"a LUKS volume", "ublk.luks,ublk.offset=512", device(4096, 0, luks), true, ""},
		{"another LUKS volume", "ublk.luks", device(4096, 0, luks), false, ""},
		{"the bytes of a LUKS volume", "ublk.offset=4K", device(4096, 0, luks), false, ""},
		{"the same encrypted one", "ublk.transfer=aes-xts-plain64,ublk.key-file=/k,ublk.iv-offset=8", device(0, 0, encrypted), true, ""},
		{"one of another iv", "ublk.transfer=aes-xts-plain64,ublk.key-file=/k", device(0, 0, encrypted), false, "overlaps"},
		{"an encrypted one", "rw", device(0, 0, func(d *client.Device) { d.Transfer.Name = "xor" }), false, "overlaps"},
	} {
		r, err := parse([]string{"/i", "/d", "-o", tt.options})
		if err != nil {
			t.Fatal(err)
		}
		d, err := r.existing(tt.have)
		if (d != nil) != tt.found || (err != nil) != (tt.refused != "") || err != nil && !strings.Contains(err.Error(), tt.refused) {
			t.Errorf("%s: %v, error %v", tt.name, d, err)
		}
	}
}

func TestIsMountedAt(t *testing.T) {
	mounts := strings.NewReplacer(`\u00a0`, "\u00a0", `\r`, "\r").Replace(`25 1 0:22 / / rw - rootfs rootfs rw
40 25 259:3 / /mnt rw,noatime shared:1 - ext4 /dev/ublkb3 rw
41 25 259:4 / /mnt/a\040b rw - ext4 /dev/ublkb4 rw
42 25 259:3 / /over rw - ext4 /dev/ublkb3 rw
43 42 0:30 / /over rw - tmpfs tmpfs rw
44 25 259:5 / /mnt/no\u00a0break\rx rw - ext4 /dev/ublkb5 rw
`)
	for at, want := range map[[2]string]bool{
		{"/dev/ublkb3", "/mnt"}: true, {"/dev/ublkb4", "/mnt/a b"}: true, {"/dev/ublkb4", "/mnt"}: false, {"/dev/ublkb3", "/mn"}: false, {"/dev/ublkb3", "/over"}: false, {"/dev/ublkb", "/mnt"}: false, {"/dev/ublkb5", "/mnt/no\u00a0break\rx"}: true,
	} {
		if got := isMountedAt([]byte(mounts), at[0], at[1]); got != want {
			t.Errorf("%v: %v, want %v", at, got, want)
		}
	}
}

// The manual has the options of the device, and no others.
func TestOptionsDocumented(t *testing.T) {
	manual, err := os.ReadFile("../../docs/ublk-loop.8")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(manual), "\n.SH MOUNTING\n")
	text, _, _ = strings.Cut(text, "\n.SH ")
	documented := regexp.MustCompile(`\bublk\.[a-z-]+`).FindAllString(strings.ReplaceAll(text, `\-`, "-"), -1)
	slices.Sort(documented)
	if documented = slices.Compact(documented); !slices.Equal(documented, names()) {
		t.Errorf("the manual has %q, want %q", documented, names())
	}
}
