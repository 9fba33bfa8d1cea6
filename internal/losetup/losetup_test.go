package losetup

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/internal/identity"
	"github.com/ublk-loop/ublk-loop/internal/report"
)

// someDevices returns devices of a file that does not exist, and one of tables.
func someDevices() []client.Device {
	list := []client.Device{
		{ID: 0, Device: "/dev/ublkb0", File: "/nonexistent/a b", FileDevice: "8:1", FileInode: 12, MajMin: "259:0", DirectIO: true},
		{ID: 1, Device: "/dev/ublkb1", File: "/nonexistent/b\n\\", FileDevice: "0:23", FileInode: 13, MajMin: "259:1", Offset: 512, SizeLimit: 1024, Autoclear: true, Ref: "mine"},
		{ID: 2, Device: "/dev/ublkb2", File: "/nonexistent/c", FileDevice: "8:1", FileInode: 14, MajMin: "259:2", ReadOnly: true, PartScan: true},
		{ID: 3, Device: "/dev/ublkb3", Table: "0 8 zero", MajMin: "259:3"},
	}
	for i := range list {
		list[i].Limits.LogicalBlockSize = 512
	}
	return list
}

// fileDevice returns a device of a file that exists.
func fileDevice(t *testing.T, id uint32, path string) client.Device {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return client.Device{ID: id, Device: blockPath(id), MajMin: "259:" + decimal(uint64(id)), PID: 1, File: path, FileDevice: identity.MajMin(st.Dev), FileInode: st.Ino}
}

// An interrupt leaves the devices whose turn has not come.
func TestDetachInterrupted(t *testing.T) {
	for _, line := range []string{"-D", "-d ublkb0 ublkb1 ublkb2"} {
		ctx, cancel := context.WithCancelCause(t.Context())
		s := &fakeSystem{devices: someDevices(), change: func() { cancel(report.ErrInterrupted) }}
		var out bytes.Buffer
		c := &Command{Name: "losetup", Out: &out, Err: &out, System: s}
		status := c.Run(ctx, strings.Fields(line))
		if status != 1 || out.String() != "losetup: interrupted\n" || !slices.Equal(s.detached, []string{"/dev/ublkb0"}) {
			t.Errorf("losetup %s: status %d, detached %v, it says %q", line, status, s.detached, &out)
		}
	}
}

// The formats are those of losetup 2.42.4. A device of tables is not a loop device.
func TestShow(t *testing.T) {
	s := &fakeSystem{devices: someDevices()}
	says(t, s, "-a", `/dev/ublkb0: [2049]:12 (/nonexistent/a b (deleted))
/dev/ublkb1: [0023]:13 (/nonexistent/b\x0a\ (deleted)), offset 512, sizelimit 1024
/dev/ublkb2: [2049]:14 (/nonexistent/c (deleted))
status 0
`)
	says(t, s, "", `NAME        SIZELIMIT OFFSET AUTOCLEAR RO BACK-FILE                     DIO LOG-SEC
/dev/ublkb0         0      0         0  0 /nonexistent/a b (deleted)      1     512
/dev/ublkb1      1024    512         1  0 /nonexistent/b\x0a\ (deleted)   0     512
/dev/ublkb2         0      0         0  1 /nonexistent/c (deleted)        0     512
status 0
`)
	says(t, s, "-n -l -O NAME,SIZELIMIT,BACK-MAJ:MIN ublkb1", "/dev/ublkb1  1024        0:23 \nstatus 0\n")
	says(t, s, "--raw -O BACK-FILE,REF,MAJ:MIN", `BACK-FILE REF MAJ:MIN
/nonexistent/a\x20b\x20(deleted) /nonexistent/a\x20b 259:0
/nonexistent/b\x0a\x5c\x20(deleted) mine 259:1
/nonexistent/c\x20(deleted) /nonexistent/c 259:2
status 0
`)
	says(t, s, "-J -l -O name,back-ino,back-maj,maj,partscan,back-file ublkb1", `{
   "loopdevices": [
      {
         "name": "/dev/ublkb1",
         "back-ino": 13,
         "back-maj": "0",
         "maj": 259,
         "partscan": false,
         "back-file": "/nonexistent/b\n\\ (deleted)"
      }
   ]
}
status 0
`)
	says(t, s, "-J -O NAME,RO", `{
   "loopdevices": [
      {
         "name": "/dev/ublkb0",
         "ro": false
      },{
         "name": "/dev/ublkb1",
         "ro": false
      },{
         "name": "/dev/ublkb2",
         "ro": true
      }
   ]
}
status 0
`)
}

// What losetup 2.42.4 says of devices that do not exist.
func TestShowNothing(t *testing.T) {
	s := &fakeSystem{}
	for _, line := range []string{"", "-l", "-a", "--raw", "-j /nonexistent", "-D", "-l -n"} {
		says(t, s, line, "status 0\n")
	}
	says(t, s, "-J", "{\n   \"loopdevices\": [\n\n   ]\n}\nstatus 0\n")
	says(t, s, "-f", "/dev/ublkb0\nstatus 0\n")
	says(t, s, "-l ublkb7", `NAME        SIZELIMIT OFFSET AUTOCLEAR RO BACK-FILE DIO LOG-SEC
/dev/ublkb7                          0  0             0 
status 0
`)
	says(t, s, "-J -l -O NAME,OFFSET,RO ublkb7", "{\n   \"loopdevices\": [\n      {\n         \"name\": \"/dev/ublkb7\",\n         \"offset\": null,\n         \"ro\": false\n      }\n   ]\n}\nstatus 0\n")
	says(t, s, "ublkb7", "losetup: /dev/ublkb7: No such device or address\nstatus 1\n")
	says(t, s, "-d ublkb7 /dev/null /nonexistent", `losetup: /dev/ublkb7: detach failed: No such device or address
losetup: /dev/null: detach failed: Inappropriate ioctl for device
losetup: /nonexistent: detach failed: No such file or directory
status 1
`)
	says(t, s, "-c ublkb7", "losetup: /dev/ublkb7: set capacity failed: No such device or address\nstatus 1\n")
	s.err = unix.EACCES
	says(t, s, "-f", "losetup: cannot find an unused loop device: Permission denied\nhint: be root\nstatus 1\n")
	for _, line := range []string{"-l", "-a", "", "-J", "-j x", "-D", "-d ublkb0", "-c ublkb0", "ublkb0", "-L -f x"} {
		says(t, s, line, "losetup: list devices: Permission denied\nhint: be root\nstatus 1\n")
	}
}

// A device of tables is not a device of a file, of which losetup could say something.
func TestShowTables(t *testing.T) {
	s := &fakeSystem{devices: []client.Device{{ID: 0, Device: "/dev/ublkb0", MajMin: "259:0"}}}
	says(t, s, "ublkb0", "losetup: /dev/ublkb0: No such device or address\nhint: it is a device of tables, which ublk-loop list shows\nstatus 1\n")
	says(t, s, "-l -n -O NAME,BACK-FILE ublkb0", "/dev/ublkb0 \nstatus 0\n")
}

// -D also detaches a device that another one of them uses.
func TestDetachAllInTurn(t *testing.T) {
	devices := someDevices()[:2]
	s := &fakeSystem{devices: devices, users: map[string]string{devices[0].Device: devices[1].Device}}
	says(t, s, "-D", "status 0\n")
	if want := []string{"/dev/ublkb0", "/dev/ublkb1", "/dev/ublkb0"}; !slices.Equal(s.detached, want) {
		t.Errorf("detached %q, want %q", s.detached, want)
	}
}

func TestAssociated(t *testing.T) {
	path, other := filepath.Join(t.TempDir(), "file"), filepath.Join(t.TempDir(), "link")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(path, other); err != nil {
		t.Fatal(err)
	}
	first, second := fileDevice(t, 0, path), fileDevice(t, 1, path)
	second.Offset, second.SizeLimit = 512, 1024
	s := &fakeSystem{devices: append([]client.Device{first, second}, someDevices()[2])}
	for line, want := range map[string]string{
		"-j " + path: "0 1", "-j " + other: "0 1", "-o 512 -j " + path: "1", "-o 512 -j " + path + " -J": "1", "-j /nonexistent/c": "2", "-j /nonexistent": "",
	} {
		got := run(t, s, append(strings.Fields(line), "-n", "-O", "NAME")...)
		if strings.Contains(line, "-J") {
			got = strings.Join(strings.Split(got, "\"")[5:6], "") + "\nstatus 0\n"
		}
		got = strings.ReplaceAll(strings.TrimSuffix(strings.ReplaceAll(got, "/dev/ublkb", ""), "status 0\n"), "\n", " ")
		if strings.TrimSpace(got) != want {
			t.Errorf("losetup %s: %q, want %q", line, got, want)
		}
	}
}

func TestDetach(t *testing.T) {
	s := &fakeSystem{devices: someDevices()}
	says(t, s, "-d ublkb2 ublkb0", "losetup: /dev/ublkb2: detach failed: Device or resource busy\nhint: wait\nstatus 1\n")
	if want := []string{"/dev/ublkb2", "/dev/ublkb0"}; !slices.Equal(s.detached, want) {
		t.Errorf("detached %q, want %q", s.detached, want)
	}
	s.detached = nil
	twice := &fakeSystem{devices: someDevices()}
	twice.change = func() {
		twice.devices = slices.DeleteFunc(slices.Clone(twice.devices), func(d client.Device) bool { return d.Device == "/dev/ublkb0" })
	}
	says(t, twice, "-d ublkb0 /dev/ublkb0", "losetup: /dev/ublkb0: detach failed: No such device or address\nstatus 1\n")
	stays := &fakeSystem{devices: someDevices()}
	says(t, stays, "-d ublkb0 ublkb0", "status 0\n") // the first goes with its last user
	other := &fakeSystem{devices: someDevices()}
	other.change = func() {
		other.devices = slices.Clone(other.devices)
		for i := range other.devices {
			other.devices[i].DiskSequence++
		}
	}
	says(t, other, "-d ublkb0 ublkb0", "losetup: /dev/ublkb0: detach failed: No such device or address\nstatus 1\n")
	if want := []string{"/dev/ublkb0"}; !slices.Equal(other.detached, want) {
		t.Errorf("detached %q, want %q", other.detached, want)
	}
	says(t, s, "-D", "losetup: /dev/ublkb2: detach failed: Device or resource busy\nhint: wait\nstatus 1\n")
	if want := []string{"/dev/ublkb0", "/dev/ublkb1", "/dev/ublkb2", "/dev/ublkb2"}; !slices.Equal(s.detached, want) {
		t.Errorf("detached %q, want %q", s.detached, want)
	}
	says(t, s, "-b 512 ublkb0", "losetup: /dev/ublkb0: set logical block size failed: Operation not supported\nhint: detach the device, and attach its file again with this option\nstatus 1\n")
	says(t, s, "--direct-io ublkb0", "losetup: /dev/ublkb0: set direct io failed: Operation not supported\nhint: detach the device, and attach its file again with this option\nstatus 1\n")
}
