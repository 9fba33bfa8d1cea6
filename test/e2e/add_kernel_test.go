package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// A device can be added, listed and removed, under each of its names.
func TestKernelAddListDel(t *testing.T) {
	b := kernelBed(t, ublktest.OldestKernel)
	file := b.image(8 << 20)
	out := b.ok("add", file)
	device := strings.TrimSuffix(out, "\n")
	id, err := strconv.Atoi(strings.TrimPrefix(device, "/dev/ublkb"))
	if err != nil || out != fmt.Sprintf("/dev/ublkb%d\n", id) {
		t.Fatalf("add prints %q", out)
	}
	b.roundTrip(device, file)
	table := b.ok("list")
	for _, text := range []string{"DEVICE", device, "live", "8M", file} {
		if !strings.Contains(table, text) {
			t.Errorf("list lacks %q:\n%s", text, table)
		}
	}
	list := b.list()
	if len(list) != 1 || list[0].Device != device || list[0].State != "live" || list[0].File != file || list[0].Size != 8<<20 {
		t.Errorf("list is %+v", list)
	}
	if dev := b.attr(list[0], "dev"); list[0].MajMin != dev {
		t.Errorf("maj:min is %q, in sysfs %q", list[0].MajMin, dev)
	}
	if pids := servers(t); len(pids) != 1 || pids[0] != list[0].PID {
		t.Errorf("servers are %v, list has %d", pids, list[0].PID)
	}
	names := []string{device, fmt.Sprint(id), fmt.Sprintf("/dev/ublkc%d", id), file}
	for i, name := range names {
		b.del(name)
		b.del(name) // the device is gone, and del succeeds again
		if left := b.list(); len(left) > 0 {
			t.Fatalf("del %s leaves %+v", name, left)
		}
		if i < len(names)-1 {
			b.add("--id", fmt.Sprint(id), file)
		}
	}
}

// With a closed standard output, the path of the device is in a warning.
func TestKernelAddClosedOutput(t *testing.T) {
	b := kernelBed(t, ublktest.OldestKernel)
	add := []string{"-c", `exec "$@" >&-`, "sh", b.bin, "add", b.image(1 << 20)}
	r := b.runCommand(exec.Command("sh", add...))
	list := b.list()
	if len(list) != 1 || r.status != 0 || r.out != "" || !strings.Contains(r.err, list[0].Device) {
		t.Fatalf("add prints %q, %q and ends with %d; devices %+v", r.out, r.err, r.status, list)
	}
	b.del(list[0].Device)
}

// roundTrip writes to the device and reads from the file, and the other way round.
func (b *bed) roundTrip(device, file string) {
	b.Helper()
	data := bytes.Repeat([]byte("ublk-loop "), 51200)
	f, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(data, 1<<20); err != nil {
		b.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		b.Fatal(err)
	}
	content, err := os.ReadFile(file)
	if err != nil {
		b.Fatal(err)
	}
	if !bytes.Equal(content[1<<20:1<<20+len(data)], data) {
		b.Error("the file lacks what was written to the device")
	}
	got := make([]byte, 4096)
	if _, err := f.ReadAt(got, 4096); err != nil || !bytes.Equal(got, content[4096:8192]) {
		b.Errorf("the device reads otherwise than the file: %v", err)
	}
}

// list finds a file by its identity, under any name.
func TestKernelListAssociated(t *testing.T) {
	b := kernelBed(t)
	file, other := b.image(1<<20), b.image(1<<20)
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Link(file, link); err != nil {
		t.Fatal(err)
	}
	first, second := b.add("--shared", file), b.add("--shared", link)
	third := b.add(other)
	if list := b.list("-j", link); len(list) != 2 || list[0].ID != first.ID || list[1].ID != second.ID {
		t.Errorf("list -j: %+v", list)
	}
	if list := b.list(third.Device, fmt.Sprint(first.ID)); len(list) != 2 {
		t.Errorf("list of two: %+v", list)
	}
	b.run("list", "/dev/ublkb999").fails(t, 1, "/dev/ublkb999")
	b.del(file) // both devices
	if list := b.list(); len(list) != 1 || list[0].ID != third.ID {
		t.Errorf("left are %+v", list)
	}
	if err := os.Remove(other); err != nil {
		t.Fatal(err)
	}
	b.del(other) // by the path, because the file is gone
}

// addFlag is flags of add, and a check of their effect.
type addFlag struct {
	args  []string
	check func(t *testing.T, s client.Device)
}

func (b *bed) addFlags() []addFlag {
	return []addFlag{
		{[]string{"--read-only"}, func(t *testing.T, s client.Device) {
			b.expect(t, s, "ro", "1")
			if err := os.WriteFile(s.Device, []byte("x"), 0); err == nil {
				t.Error("it can be written to")
			}
			if flags := b.fileFlags(t, s); flags&unix.O_ACCMODE != unix.O_RDONLY {
				t.Errorf("the file is open with %#o", flags)
			}
		}},
		{[]string{}, func(t *testing.T, s client.Device) {
			b.expect(t, s, "ro", "0")
			b.expect(t, s, "queue/logical_block_size", "512")
			b.expectQueues(t, s, runtime.NumCPU())
			if flags := b.fileFlags(t, s); flags&unix.O_ACCMODE != unix.O_RDWR {
				t.Errorf("the file is open with %#o", flags)
			}
		}},
		{[]string{"--offset", "512K"}, func(t *testing.T, s client.Device) {
			b.expect(t, s, "size", "15360")
			b.firstByte(t, s, 0) // first byte of sector 1024: its number modulo 256
		}},
		{[]string{"-o", "1536"}, func(t *testing.T, s client.Device) { b.firstByte(t, s, 3) }},
		{[]string{"--sizelimit", "1MiB"}, func(t *testing.T, s client.Device) { b.expect(t, s, "size", "2048") }},
		{[]string{"--sizelimit", "1G"}, func(t *testing.T, s client.Device) { b.expect(t, s, "size", "16384") }},
		{[]string{"--sector-size", "4K"}, func(t *testing.T, s client.Device) {
			b.expect(t, s, "queue/logical_block_size", "4096")
		}},
		{[]string{"-b1024"}, func(t *testing.T, s client.Device) { b.expect(t, s, "queue/logical_block_size", "1024") }},
		{[]string{"--queues", "1"}, func(t *testing.T, s client.Device) { b.expectQueues(t, s, 1) }},
		{[]string{"--queues", "2"}, func(t *testing.T, s client.Device) { b.expectQueues(t, s, min(2, runtime.NumCPU())) }},
		{[]string{"--depth", "17"}, func(t *testing.T, s client.Device) {
			b.expect(t, s, "mq/0/nr_tags", "17")
			if s.Depth != 17 {
				t.Errorf("depth is %d", s.Depth)
			}
		}},
		{[]string{"--max-io", "64K"}, func(t *testing.T, s client.Device) { b.expect(t, s, "queue/max_hw_sectors_kb", "64") }},
		{[]string{"--max-io", "128K", "--zero-copy=off"}, func(t *testing.T, s client.Device) {
			b.expect(t, s, "queue/max_hw_sectors_kb", "128")
			if s.BufferMode != "copy" {
				t.Errorf("buffer mode is %s", s.BufferMode)
			}
		}},
		{[]string{"--max-io", "8M"}, func(t *testing.T, s client.Device) { b.expect(t, s, "queue/max_hw_sectors_kb", "8192") }},
		{[]string{"--id", "77"}, func(t *testing.T, s client.Device) {
			if s.ID != 77 || s.Device != "/dev/ublkb77" {
				t.Errorf("device is %d, %s", s.ID, s.Device)
			}
		}},
	}
}

// Each flag of add has a visible effect.
func TestKernelAddFlags(t *testing.T) {
	b := kernelBed(t, ublktest.CPUs)
	file := b.image(8 << 20)
	for _, tt := range b.addFlags() {
		t.Run(strings.Join(tt.args, " "), func(t *testing.T) {
			b := b.in(t)
			s := b.add(append(tt.args, file)...)
			tt.check(t, s)
			b.del(s.Device)
		})
	}
}

func (b *bed) expect(t *testing.T, s client.Device, attr, want string) {
	t.Helper()
	if got := b.attr(s, attr); got != want {
		t.Errorf("%s is %s, want %s", attr, got, want)
	}
}

// expectQueues checks the numbers of the kernel's queues and of the server's threads.
func (b *bed) expectQueues(t *testing.T, s client.Device, want int) {
	t.Helper()
	queues, err := filepath.Glob("/sys/block/" + filepath.Base(s.Device) + "/mq/*")
	if err != nil || len(queues) != want || s.Queues != want {
		t.Errorf("there are %d queues, list has %d, want %d: %v", len(queues), s.Queues, want, err)
	}
}

// fileFlags returns the flags with which the server opened the file.
func (b *bed) fileFlags(t *testing.T, s client.Device) int {
	t.Helper()
	links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", s.PID))
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if target, err := os.Readlink(link); err != nil || target != s.File {
			continue
		}
		info, err := os.ReadFile(strings.Replace(link, "/fd/", "/fdinfo/", 1))
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range strings.Split(string(info), "\n") {
			if flags, found := strings.CutPrefix(line, "flags:\t"); found {
				n, err := strconv.ParseInt(flags, 8, 32)
				if err != nil {
					t.Fatal(err)
				}
				return int(n)
			}
		}
	}
	t.Fatalf("server %d does not have %s open", s.PID, s.File)
	return 0
}

func (b *bed) firstByte(t *testing.T, s client.Device, want byte) {
	t.Helper()
	f, err := os.Open(s.Device)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got := make([]byte, 1)
	if _, err := f.ReadAt(got, 0); err != nil || got[0] != want {
		t.Errorf("first byte is %d, want %d: %v", got[0], want, err)
	}
}

// bufferMode returns the best buffer mode of the kernel.
func (b *bed) bufferMode() string {
	b.Helper()
	var features struct {
		BufferMode string `json:"buffer_mode"`
	}
	b.decode(b.ok("features", "--json"), &features)
	return features.BufferMode
}

// A device uses zero copy if the kernel supports it. Otherwise add refuses
// --zero-copy=on.
func TestKernelZeroCopy(t *testing.T) {
	b := kernelBed(t, ublktest.EveryKernel)
	file := b.image(1 << 20)
	mode := b.bufferMode()
	s := b.add(file)
	if s.BufferMode != mode {
		t.Errorf("buffer mode is %s, features has %s", s.BufferMode, mode)
	}
	b.del(file)
	r := b.run("add", "--json", "--zero-copy=on", file)
	ublktest.CheckAbility(t, ublktest.ZeroCopy, mode != "copy")
	if mode == "copy" {
		r.fails(t, 1, file, "not supported", "hint: --zero-copy")
		return
	}
	r.succeeds(t)
	b.decode(r.out, &s)
	if s.BufferMode == "copy" {
		t.Error("--zero-copy=on copies")
	}
	b.del(file)
}

// list shows whether a device uses direct I/O, and the file is open accordingly.
func TestKernelDirectIO(t *testing.T) {
	b := kernelBed(t)
	file := filepath.Join(b.fileSystem(), "direct.img")
	if err := os.WriteFile(file, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	for flag, want := range map[string]bool{"on": true, "off": false, "auto": true} {
		s := b.add("--direct-io", flag, file)
		if isDirect := b.fileFlags(t, s)&unix.O_DIRECT != 0; isDirect != want || s.DirectIO != want {
			t.Errorf("--direct-io=%s: open for direct I/O %v, list has %v, want %v", flag, isDirect, s.DirectIO, want)
		}
		b.del(s.Device)
	}
	b.run("add", "--direct-io=on", b.image(1<<20)).fails(t, 1, "disk.img", "direct I/O", "hint: --direct-io") // tmpfs
}

// fileSystem mounts an ext4 on a new device, and returns the mount point.
func (b *bed) fileSystem() string {
	b.Helper()
	s := b.add(b.image(64 << 20))
	b.Cleanup(func() { b.del(s.Device) })
	b.tool("mkfs.ext4", "-q", s.Device)
	dir := b.TempDir()
	b.tool("mount", s.Device, dir)
	b.Cleanup(func() { b.tool("umount", dir) })
	return dir
}

// The log has one JSON object a line, each with the device's id.
func TestKernelLogFile(t *testing.T) {
	b := kernelBed(t)
	log := filepath.Join(t.TempDir(), "log")
	file := b.image(1 << 20)
	for range 2 { // the second server appends to the log
		b.add("--log-file", log, "--id", "5", file)
		b.del(file)
	}
	data, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	for _, line := range lines {
		var entry struct {
			Level, Msg string
			ID         *int
		}
		b.decode(line, &entry)
		if entry.ID == nil || *entry.ID != 5 || entry.Level != "info" {
			t.Errorf("line %s", line)
		}
	}
	if len(lines) != 6 || strings.Count(string(data), file) != 2 {
		t.Errorf("the log is\n%s", data)
	}
}

// If add cannot print the path, it leaves no device, because its user would not know of
// the device.
func TestKernelAddWithoutOutput(t *testing.T) {
	b := kernelBed(t)
	before := things(t)
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	reader, unread, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	reader.Close()
	defer unread.Close()
	for _, flag := range []string{"--json", "--foreground"} {
		for out, want := range map[*os.File]string{full: "no space left on device", unread: "broken pipe"} {
			var errOut bytes.Buffer
			cmd := b.command("add", flag, b.image(1<<20))
			cmd.Stdout, cmd.Stderr = out, &errOut
			if err := cmd.Run(); cmd.ProcessState.ExitCode() != 1 || !strings.Contains(errOut.String(), want) {
				t.Errorf("add %s: %v, errors\n%s", flag, err, &errOut)
			}
			b.nothingSince(before)
		}
	}
}
