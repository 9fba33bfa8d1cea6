package losetup

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/internal/report"
)

// sized makes a file of size bytes.
func sized(t *testing.T, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "img")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	return path
}

// If standard output may be closed, the path of the device is on standard error.
func TestShowClosedOutput(t *testing.T) {
	file := sized(t, 4096)
	for mode, want := range map[int]string{
		os.O_RDWR:   "losetup: " + file + ": the device is /dev/ublkb0, but standard output is closed or discarded\n",
		os.O_WRONLY: "",
	} {
		null, err := os.OpenFile(os.DevNull, mode, 0)
		if err != nil {
			t.Fatal(err)
		}
		var errOut bytes.Buffer
		c := Command{Name: "losetup", Out: null, Err: &errOut, System: &fakeSystem{}}
		if status := c.Run(t.Context(), []string{"-f", "--show", file}); status != 0 || errOut.String() != want {
			t.Errorf("status %d, errors %q; want %q", status, &errOut, want)
		}
		if err := null.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestCreate(t *testing.T) {
	whole, odd := sized(t, 4096), sized(t, 1000)
	warning := "losetup: %s: Warning: file does not end on a 512-byte sector boundary; the remaining end of the file will be ignored.\n"
	for _, tt := range []struct {
		line, file string
		says       string
		attached   string // behind the path
	}{
		{"-f", whole, "", ` 0+0 0 auto ""`},
		{"-f --show", whole, "/dev/ublkb0\n", ` 0+0 0 auto ""`},
		{"--show /dev/ublkb7", whole, "/dev/ublkb7\n", ` id=7 0+0 0 auto ""`},
		{"ublkb7", whole, "", ` id=7 0+0 0 auto ""`},
		{"-f -o 1K --sizelimit 512 -b 512 -P -r --direct-io --loop-ref me", whole, "", ` ro partscan 1024+512 512 on "me"`},
		{"-f --direct-io=off", whole, "", ` 0+0 0 off ""`},
		{"-f --loop-ref " + strings.Repeat("ü", 40), whole, "", ` 0+0 0 auto "` + strings.Repeat("ü", 31) + `"`},
		{"-f --loop-ref " + strings.Repeat("x", 70), whole, "", ` 0+0 0 auto "` + strings.Repeat("x", 63) + `"`},
		{"-f --show", odd, "/dev/ublkb0\n" + fmt.Sprintf(warning, odd), ` 0+0 0 auto ""`},
		{"-f --sizelimit 1000", whole, fmt.Sprintf(warning, whole), ` 0+1000 0 auto ""`},
		{"-f -o 100 -r", whole, fmt.Sprintf(warning, whole), ` ro 100+0 0 auto ""`},
		{"-f -o 100", whole, "losetup: " + whole + ": Warning: the offset is not a multiple of 512; the device is read-only.\n" + fmt.Sprintf(warning, whole), ` ro 100+0 0 auto ""`},
	} {
		s := &fakeSystem{}
		says(t, s, tt.line+" "+tt.file, tt.says+"status 0\n")
		if len(s.attached) != 1 || sorted(s.attached[0]) != sorted(tt.file+tt.attached) {
			t.Errorf("losetup %s: attached %q, want %q", tt.line, s.attached, tt.file+tt.attached)
		}
	}
}

// losetup's words say only that an argument is invalid. The next line says why.
func TestCreateSaysWhy(t *testing.T) {
	invalid := fmt.Errorf("open /x: 5 bytes: %w", unix.EINVAL)
	for _, tt := range []struct {
		err  error
		want string
	}{
		{invalid, "Invalid argument\ncause: open /x: 5 bytes\n"},
		{hint.Add(invalid, "add some"), "Invalid argument\ncause: open /x: 5 bytes\nhint: add some\n"},
		{fmt.Errorf("open /x: %w", unix.EOPNOTSUPP), "Operation not supported\n"},
		{unix.EINVAL, "Invalid argument\n"},
		{fmt.Errorf("open /x: %w", unix.ENOENT), "No such file or directory\n"},
	} {
		says(t, &fakeSystem{refuse: []error{tt.err}}, "-f x", "losetup: x: failed to set up loop device: "+tt.want+"status 1\n")
	}
}

// The kernel refuses what its signed numbers cannot hold.
func TestCreateTooFar(t *testing.T) {
	file := sized(t, 4096)
	for _, option := range []string{"-o 8E", "--sizelimit 8E", "-o 9223372036854775808", "--sizelimit 18446744073709551615"} {
		s := &fakeSystem{}
		says(t, s, "-f "+option+" "+file, "losetup: "+file+": failed to set up loop device: Value too large for defined data type\nstatus 1\n")
		if len(s.attached) > 0 {
			t.Errorf("%s: attached %q", option, s.attached)
		}
	}
}

// sorted returns the words of a text in order.
func sorted(text string) string {
	words := strings.Fields(text)
	slices.Sort(words)
	return strings.Join(words, " ")
}

// A file in use is shared, and one that cannot be written to is attached read-only.
func TestCreateFallsBack(t *testing.T) {
	path := sized(t, 4096)
	for name, tt := range map[string]struct {
		refuse []error
		line   string
		last   string // of what is attached
		says   string
	}{
		"in use":            {[]error{unix.EBUSY}, "-f", " shared", ""},
		"read-only":         {[]error{unix.EROFS}, "-f", " ro", ""},
		"forbidden":         {[]error{unix.EACCES}, "-f", " ro", ""},
		"read-only, in use": {[]error{unix.EROFS, unix.EBUSY}, "-f", " ro shared", ""},
		"still in use":      {[]error{unix.EBUSY, unix.EBUSY}, "-f", " shared", "Device or resource busy\nhint: wait"},
		"number taken":      {[]error{unix.EEXIST}, "ublkb3", " id=3", "Device or resource busy\nhint: wait"},
		"forbidden to read": {[]error{unix.EACCES}, "-f -r", " ro", "Permission denied\nhint: be root"},
		"missing":           {[]error{unix.ENOENT}, "-f", "", "No such file or directory"},
		"without an errno":  {[]error{fmt.Errorf("out of cheese")}, "-f", "", "out of cheese"},
	} {
		t.Run(name, func(t *testing.T) {
			s := &fakeSystem{refuse: tt.refuse}
			want := "status 0\n"
			if tt.says != "" {
				want = "losetup: " + path + ": failed to set up loop device: " + tt.says + "\nstatus 1\n"
			}
			says(t, s, tt.line+" "+path, want)
			if last := s.attached[len(s.attached)-1]; sorted(last) != sorted(path+tt.last+` 0+0 0 auto ""`) {
				t.Errorf("last attached is %q", last)
			}
		})
	}
}

// --nooverlap finds the device with the same part of the file, and refuses others that
// overlap.
func TestNoOverlap(t *testing.T) {
	path, other := sized(t, 1<<20), sized(t, 1<<20)
	device := func(id uint32, offset, limit uint64, change func(*client.Device)) client.Device {
		d := fileDevice(t, id, path)
		d.Offset, d.SizeLimit = offset, limit
		if change != nil {
			change(&d)
		}
		return d
	}
	middle := device(0, 4096, 4096, nil)
	readOnly := device(0, 0, 0, func(d *client.Device) { d.ReadOnly = true })
	going := device(0, 0, 0, func(d *client.Device) { d.Autoclear = true })
	encrypted := device(0, 0, 0, func(d *client.Device) { d.Transfer.Name = "xor" })
	for _, tt := range []struct {
		line string
		have client.Device
		says string // of the error, or the device that is found; empty for a new one
	}{
		{"-f", middle, "overlapping loop device exists"},
		{"-f -o 4K --sizelimit 4K", middle, "/dev/ublkb0"},
		{"-f -o 4K", middle, "overlapping loop device exists"},
		{"-f --sizelimit 4097", middle, "overlapping loop device exists"},
		{"-f -o 8191", middle, "overlapping loop device exists"},
		{"-f --sizelimit 4K", middle, ""},
		{"-f -o 8K", middle, ""},
		{"ublkb5 -o 8K", middle, ""},
		{"ublkb5 -o 4K --sizelimit 4K", middle, "overlapping loop device exists"},
		{"-f -o 1M", device(0, 4096, 0, nil), "overlapping loop device exists"},
		{"-f --sizelimit 4K", device(0, 4096, 0, nil), ""},
		{"-f", readOnly, "overlapping read-only loop device exists"},
		{"-f -r", readOnly, "/dev/ublkb0"},
		{"-f", going, "/dev/ublkb0"},
		{"-f", encrypted, "overlapping encrypted loop device exists"},
		{"-f", fileDevice(t, 0, other), ""},
	} {
		s := &fakeSystem{devices: []client.Device{tt.have}}
		got := run(t, s, strings.Fields("-L --show "+tt.line+" "+path)...)
		want := "losetup: " + path + ": " + tt.says + "\nstatus 1\n"
		if tt.says == "/dev/ublkb0" {
			want = tt.says + "\nstatus 0\n"
		}
		switch isNew := len(s.attached) > 0; {
		case isNew != (tt.says == ""):
			t.Errorf("losetup -L %s: attached %q", tt.line, s.attached)
		case !isNew && got != want:
			t.Errorf("losetup -L %s says %swant %s", tt.line, got, want)
		case (len(s.kept) > 0) != (tt.have.Autoclear && !isNew):
			t.Errorf("losetup -L %s: kept %q", tt.line, s.kept)
		}
	}
}

// --nooverlap waits for a device that is being made or removed. It fails for other reasons.
func TestNoOverlapWaits(t *testing.T) {
	path := sized(t, 4096)
	ours := fileDevice(t, 0, path)
	ours.Autoclear = true
	unstarted, other := ours, ours
	unstarted.MajMin, other.SizeLimit, other.MajMin = "", 512, ""
	lost := unstarted
	lost.PID = 0
	gone, started := []client.Device{}, []client.Device{ours}
	for name, tt := range map[string]struct {
		have   client.Device
		later  []client.Device // listed from the second look on; nil for the same
		noKeep []error
		says   string // of the error, or the device; empty for a new one
	}{
		"unknown to serve": {ours, nil, []error{unix.ENODEV, unix.ENODEV}, "/dev/ublkb0"},
		"ends":             {ours, gone, []error{unix.ENODEV}, ""},
		"starts":           {unstarted, started, nil, "/dev/ublkb0"},
		"never starts":     {unstarted, gone, nil, ""},
		"other part ends":  {other, gone, nil, ""},
		"without a server": {lost, nil, nil, ""},
		"hung":             {ours, nil, []error{unix.EBUSY}, "failed to re-use loop device: Device or resource busy\nhint: wait"},
	} {
		t.Run(name, func(t *testing.T) {
			s := &fakeSystem{devices: []client.Device{tt.have}, noKeep: tt.noKeep}
			if tt.later != nil {
				s.later = func() { s.devices = tt.later }
			}
			want := "losetup: " + path + ": " + tt.says + "\nstatus 1\n"
			if tt.says == "/dev/ublkb0" {
				want = tt.says + "\nstatus 0\n"
			}
			got := run(t, s, "-L", "-f", "--show", path)
			switch isNew := len(s.attached) > 0; {
			case isNew != (tt.says == ""):
				t.Errorf("attached %q, says %s", s.attached, got)
			case !isNew && got != want:
				t.Errorf("says %swant %s", got, want)
			}
		})
	}
}

// A file can be in use because another call with --nooverlap makes its device.
func TestNoOverlapInUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := sized(t, 4096)
		s := &fakeSystem{refuse: []error{unix.EBUSY}}
		s.later = func() { s.devices = []client.Device{fileDevice(t, 0, path)} }
		says(t, s, "-L -f --show "+path, "/dev/ublkb0\nstatus 0\n")
		if len(s.attached) != 1 {
			t.Errorf("attached %q", s.attached)
		}
		s = &fakeSystem{refuse: []error{unix.EBUSY}}
		says(t, s, "-L -f --show "+path, "/dev/ublkb0\nstatus 0\n")
		if len(s.attached) != 2 || !strings.Contains(s.attached[1], " shared ") {
			t.Errorf("without such a call: attached %q", s.attached)
		}
	})
}

// An interrupt ends the wait of --nooverlap.
func TestNoOverlapInterrupted(t *testing.T) {
	path := sized(t, 4096)
	unstarted := fileDevice(t, 0, path)
	unstarted.MajMin = ""
	ctx, cancel := context.WithCancelCause(t.Context())
	s := &fakeSystem{devices: []client.Device{unstarted}, later: func() { cancel(report.ErrInterrupted) }}
	var out bytes.Buffer
	c := &Command{Name: "losetup", Out: &out, Err: &out, System: s}
	if status := c.Run(ctx, []string{"-L", "-f", path}); status != 1 || out.String() != "losetup: interrupted\n" || len(s.attached) > 0 {
		t.Errorf("status %d, attached %q, it says %q", status, s.attached, &out)
	}
}
