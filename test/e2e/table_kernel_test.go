package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// A device of a table of files can be added, used, listed and removed, by its own name and by
// that of each file. Nothing is left when the server is killed.
func TestKernelAddTable(t *testing.T) {
	b := kernelBed(t, ublktest.EveryKernel)
	first, second := b.image(4<<20), b.image(8<<20)
	table := filepath.Join(t.TempDir(), "table")
	text := fmt.Sprintf("0 8192 linear %s 0\n8192 8192 linear %s 8192\n", first, second)
	if err := os.WriteFile(table, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("GODEBUG", "madvdontneed=1") // as checkServer expects
	add := func() client.Device { return b.add("--table", table) }
	device := add()
	if device.Size != 8<<20 || device.Table != text || len(device.Files) != 2 || device.Files[1].File != second || device.File != "" {
		t.Errorf("device %+v", device)
	}
	b.checkServer(device)
	if out := b.ok("list"); !strings.Contains(out, "table of "+first+", "+second) {
		t.Errorf("list prints %s", out)
	}
	b.throughBoth(device.Device, first, second)
	if list := b.list("--associated", second); len(list) != 1 || list[0].ID != device.ID {
		t.Errorf("devices of the second file: %+v", list)
	}
	b.run("add", first).fails(t, 1, "already in use")
	b.run("resize", device.Device).fails(t, 1, "resize of a device of tables: unsupported operation")
	b.del(second)
	for range 2 {
		device = add()
		server, err := os.FindProcess(device.PID)
		if err != nil {
			t.Fatal(err)
		}
		if err := server.Kill(); err != nil {
			t.Fatal(err)
		}
		waitUntil(t, "the end of the server", func() bool { return len(servers(t)) == 0 })
		b.del(device.Device)
	}
}

// The stack that list --dm-table prints makes the same device with dmsetup, whose content is
// what was written through ublk-loop. The key, which is in the text of the table, is in no
// place where others can read it.
func TestKernelTableForDmsetup(t *testing.T) {
	b := kernelBed(t, ublktest.EveryKernel)
	t.Setenv("DM_DISABLE_UDEV", "1") // libdevmapper then makes the nodes itself
	b.tool("modprobe", "-a", "dm_mod", "dm_crypt", "loop")
	var disks []string
	for range 2 {
		disk := strings.TrimSpace(b.tool("losetup", "--find", "--show", b.image(4<<20)))
		t.Cleanup(func() { b.tool("losetup", "--detach", disk) })
		disks = append(disks, disk)
	}
	key := randomBytes(64)
	text := fmt.Sprintf("low,,,,0 8192 striped 2 16 %s 0 %s 64;top,,,,0 4096 crypt aes-xts-plain64 %x 0 /dev/mapper/low 8", disks[0], disks[1], key)
	device, err := b.addInput(text, "--table", "-")
	if err != nil {
		t.Fatal(err)
	}
	data := randomBytes(2 << 20)
	b.store(device.Device, data)
	concise := b.ok("list", "--dm-table")
	for place, content := range map[string]string{
		"list": concise + b.ok("list", "--json"), "state": b.fileText(fmt.Sprintf("/run/ublk-loop/%d.json", device.ID)),
		"command line": b.proc(device, "cmdline"), "environment": b.proc(device, "environ"),
	} {
		if strings.Contains(content, fmt.Sprintf("%x", key[:16])) || strings.Contains(content, string(key[:16])) {
			t.Errorf("the key is in %s", place)
		}
	}
	b.del(device.Device)
	id, err := unix.AddKey("user", "ublk-loop", key, unix.KEY_SPEC_USER_SESSION_KEYRING)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = unix.KeyctlInt(unix.KEYCTL_UNLINK, id, unix.KEY_SPEC_USER_SESSION_KEYRING, 0, 0) }()
	b.tool("dmsetup", "create", "--concise", strings.TrimSpace(concise))
	if got := b.fileText("/dev/mapper/top"); got != string(data) {
		t.Error("dmsetup's device has other bytes")
	}
	b.tool("dmsetup", "remove", "top")
	b.tool("dmsetup", "remove", "low")
	// With the name of the key instead of the key, ublk-loop takes what it has printed.
	device, err = b.addInput(concise, "--table", "-")
	if err != nil {
		t.Fatal(err)
	}
	if got := b.fileText(device.Device); got != string(data) {
		t.Error("the device of the printed table has other bytes")
	}
	b.del(device.Device)
}

// addInput adds a device with standard input.
func (b *bed) addInput(input string, args ...string) (device client.Device, err error) {
	b.Helper()
	cmd := b.command(append([]string{"add", "--json"}, args...)...)
	cmd.Stdin = strings.NewReader(input)
	r := b.runCommand(cmd)
	if r.status != 0 {
		return device, fmt.Errorf("add: status %d: %s", r.status, r.err)
	}
	b.decode(r.out, &device)
	return device, nil
}

func (b *bed) fileText(path string) string {
	b.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		b.Fatal(err)
	}
	return string(content)
}

// throughBoth writes across the border of two halves, and finds the bytes in both files.
func (b *bed) throughBoth(device, first, second string) {
	b.Helper()
	f, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	data := strings.Repeat("ublk-loop tables", 512)
	if _, err := f.WriteAt([]byte(data), 4<<20-4096); err != nil {
		b.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		b.Fatal(err)
	}
	for file, at := range map[string]int64{first: 4<<20 - 4096, second: 4 << 20} {
		content, err := os.ReadFile(file)
		if err != nil {
			b.Fatal(err)
		}
		if string(content[at:at+4096]) != data[:4096] {
			b.Errorf("%s lacks what was written to the device", file)
		}
	}
}
