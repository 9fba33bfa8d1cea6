package e2e

import (
	"fmt"
	mathrand "math/rand/v2"
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
	b := kernelBed(t, ublktest.OldestKernel)
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
	b.del(second)
	for range 2 {
		device = add()
		if err := unix.Kill(device.PID, unix.SIGKILL); err != nil {
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
	b := kernelBed(t, ublktest.OldestKernel)
	t.Setenv("DM_DISABLE_UDEV", "1") // libdevmapper then makes the nodes itself
	b.tool("modprobe", "-a", "dm_mod", "dm_crypt", "loop")
	var disks []string
	for range 2 {
		disk := strings.TrimSpace(b.tool("losetup", "--find", "--show", b.image(4<<20)))
		t.Cleanup(func() { b.tool("losetup", "--detach", disk) })
		disks = append(disks, disk)
	}
	key, second := randomBytes(64), randomBytes(32)
	text := fmt.Sprintf("low,,,,0 8192 striped 2 16 %s 0 %s 64;top,,,,0 2048 crypt aes-xts-plain64 %x 0 /dev/mapper/low 8,"+
		"2048 2048 crypt aes-xts-plain64 %x 0 /dev/mapper/low 2056", disks[0], disks[1], key, second)
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
	b.addKeyForTest("ublk-loop", key)
	b.addKeyForTest("ublk-loop:2", second)
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

// addKey adds a key to the keyring that all processes of the user have, or changes it.
func (b *bed) addKey(description string, content []byte) int {
	b.Helper()
	id, err := unix.AddKey("user", description, content, unix.KEY_SPEC_USER_SESSION_KEYRING)
	if err != nil {
		b.Fatal(err)
	}
	return id
}

// addKeyForTest is addKey for a key that goes with the test.
func (b *bed) addKeyForTest(description string, content []byte) {
	b.Helper()
	id := b.addKey(description, content)
	b.Cleanup(func() { _, _ = unix.KeyctlInt(unix.KEYCTL_UNLINK, id, unix.KEY_SPEC_USER_SESSION_KEYRING, 0, 0) })
}

// A device with two keys in the text of its table is recovered with both, under the names that
// list prints.
func TestKernelTableWithTwoKeys(t *testing.T) {
	b := kernelBed(t)
	file, one, two := b.image(2<<20), randomBytes(64), randomBytes(64)
	device := b.addTable(fmt.Sprintf("0 2048 crypt aes-xts-plain64 %x 0 %s 0\n2048 2048 crypt aes-xts-plain64 %x 0 %s 2048", one, file, two, file),
		"--on-crash=reissue")
	data := randomBytes(2 << 20)
	b.store(device.Device, data)
	b.killServer(device)
	b.addKeyForTest("ublk-loop", one)
	b.addKeyForTest("ublk-loop:2", one)
	b.run("recover", device.Device).fails(t, 1, "not the keys that the device was made with")
	b.addKeyForTest("ublk-loop:2", two)
	b.recover(device)
	b.holds(device.Device, data)
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

// A device of tables whose server is killed again and again keeps every write that it has
// acknowledged, and none fails. The files must be those of the device.
func TestKernelTableOutlivesServers(t *testing.T) {
	b := kernelBed(t, ublktest.OldestKernel, ublktest.Soak)
	first, second := b.image(2<<20), b.image(2<<20)
	key := randomBytes(64)
	id := b.addKey("ublk-loop:table", key)
	defer func() { _, _ = unix.KeyctlInt(unix.KEYCTL_UNLINK, id, unix.KEY_SPEC_USER_SESSION_KEYRING, 0, 0) }()
	for _, text := range []string{
		fmt.Sprintf("0 8192 striped 2 16 %s 0 %s 0", first, second),
		fmt.Sprintf("0 2048 linear %s 0\n2048 2048 crypt aes-xts-plain64 :64:user:ublk-loop:table 0 %s 0", first, second),
	} {
		device, err := b.addInput(text, "--table", "-", "--on-crash=reissue")
		if err != nil {
			t.Fatal(err)
		}
		b.keepsWrites(device)
		b.recoversOnlyTheSame(device, text, second, key)
		b.del(device.Device)
	}
}

// recoversOnlyTheSame tries to recover a device with another file and another key. Then the
// command that made the device recovers it.
func (b *bed) recoversOnlyTheSame(device client.Device, text, file string, key []byte) {
	b.Helper()
	b.killServer(b.list(device.Device)[0])
	if err := os.Rename(file, file+".moved"); err != nil {
		b.Fatal(err)
	}
	if err := os.Rename(b.image(2<<20), file); err != nil {
		b.Fatal(err)
	}
	b.run("recover", device.Device).fails(b, 1, file+" is another file or disk than the device was made of")
	if err := os.Rename(file+".moved", file); err != nil {
		b.Fatal(err)
	}
	if strings.Contains(text, "crypt") {
		b.addKey("ublk-loop:table", randomBytes(64))
		b.run("recover", device.Device).fails(b, 1, "not the keys that the device was made with")
		b.addKey("ublk-loop:table", key)
	}
	if _, err := b.addInput("0 8 zero", "--table", "-", "--on-crash=reissue", "--id", fmt.Sprint(device.ID)); err == nil {
		b.Error("another table recovers the device")
	}
	again, err := b.addInput(text, "--table", "-", "--on-crash=reissue", "--id", fmt.Sprint(device.ID))
	if err != nil || again.ID != device.ID || again.DiskSequence != device.DiskSequence {
		b.Errorf("the same add makes %+v: %v", again, err)
	}
}

// keepsWrites writes to a device while its servers are killed, and compares its content.
func (b *bed) keepsWrites(device client.Device) {
	b.Helper()
	b.keepsWritesWhile(device, func() {
		b.killServer(b.list(device.Device)[0])
		b.ok("recover", device.Device)
	})
}

// keepsWritesWhile writes to a device while its servers change, and compares its content.
func (b *bed) keepsWritesWhile(device client.Device, change func()) {
	b.Helper()
	stop, result := make(chan struct{}), make(chan writerResult, 1)
	go func() { result <- writeUntil(device.Device, int(device.Size), stop) }()
	for range ublktest.Kills(b, 3, 20) {
		change()
	}
	close(stop)
	r := <-result
	if r.err != nil || r.writes == 0 {
		b.Fatalf("%d writes, then %v", r.writes, r.err)
	}
	if got := b.fileText(device.Device); got != string(r.content) {
		b.Errorf("other bytes than the %d writes", r.writes)
	}
}

type writerResult struct {
	content []byte
	writes  int
	err     error
}

// writeUntil writes random bytes to a device of zeroes, at random places, until stop is closed.
func writeUntil(path string, size int, stop <-chan struct{}) (r writerResult) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return writerResult{err: err}
	}
	defer f.Close()
	r.content = randomBytes(size)
	if _, r.err = f.WriteAt(r.content, 0); r.err != nil {
		return r
	}
	for {
		select {
		case <-stop:
			r.err = f.Sync()
			return r
		default:
		}
		data := randomBytes(4096 * (1 + mathrand.IntN(32)))
		at := 4096 * mathrand.IntN((size-len(data))/4096)
		if _, r.err = f.WriteAt(data, int64(at)); r.err == nil {
			r.err = f.Sync()
		}
		if r.err != nil {
			return r
		}
		copy(r.content[at:], data)
		r.writes++
	}
}
