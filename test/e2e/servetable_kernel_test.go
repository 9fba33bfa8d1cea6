package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// stripes returns a table of two files of 2 MiB, and the files.
func (b *bed) stripes() (text, first, second string) {
	b.Helper()
	first, second = b.image(2<<20), b.image(2<<20)
	return fmt.Sprintf("0 8192 striped 2 16 %s 0 %s 0", first, second), first, second
}

// addTable adds a device of tables.
func (b *bed) addTable(text string, args ...string) client.Device {
	b.Helper()
	device, err := b.addInput(text, append([]string{"--table", "-"}, args...)...)
	if err != nil {
		b.Fatal(err)
	}
	return device
}

// A server of many devices serves tables, of files that add has opened. Each of the files is
// locked, and finds the device. The metrics have it.
func TestKernelServeTable(t *testing.T) {
	b := kernelBed(t)
	m := b.serve()
	text, first, second := b.stripes()
	device := b.addTable(text)
	if device.PID != m.pid() || device.Autoclear || len(device.Files) != 2 || device.Files[0].File != first || device.Files[1].File != second {
		t.Errorf("device %+v, want one of process %d", device, m.pid())
	}
	b.works(device)
	if n := m.counts(device)["write"].bytes; n != 4<<20 {
		t.Errorf("the metrics have writes of %d bytes", n)
	}
	info := fmt.Sprintf(`ublk_loop_device_info{device=%q,id="%d",file="table of %s, %s"`, filepath.Base(device.Device), device.ID, first, second)
	if text := m.metrics(); !strings.Contains(text, info) {
		t.Errorf("the metrics lack %s", info)
	}
	for _, file := range []string{first, second} {
		b.run("add", file).fails(t, 1, "already in use")
		if list := b.list("--associated", file); len(list) != 1 || list[0].ID != device.ID {
			t.Errorf("devices of %s: %+v", file, list)
		}
	}
	alone := b.addTable("0 8 zero", "--standalone")
	if alone.PID == m.pid() {
		t.Error("a device that was to have its own server is served by the other")
	}
	b.del(alone.Device)
	b.del(second)
	passing := b.addTable("0 8 zero", "--autoclear=1ms")
	if passing.PID != m.pid() || !passing.Autoclear {
		t.Errorf("device %+v, want one of process %d that is removed", passing, m.pid())
	}
	b.isGone(passing)
	if locks := b.locks(); len(locks) != 0 {
		t.Errorf("locks are left: %q", locks)
	}
}

// Without descriptors the server opens the files and disks of a table itself. The device goes
// with its lease.
func TestKernelServeTableOfPaths(t *testing.T) {
	b := kernelBed(t)
	_, first, second := b.stripes()
	number := b.attr(client.Device{Device: b.loopDisk("", second)}, "dev") // before serve, which ends first
	m := b.serve()
	h := m.leaseOf(fmt.Sprintf(`{"table":"0 4096 linear %s 0\n4096 4096 linear %s 0","lease":true}`, first, number))
	if files := h.device.Files; len(files) != 2 || files[0].File != first || files[1].Device != number || !files[1].IsDisk {
		t.Errorf("files %+v", files)
	}
	b.works(h.device)
	b.run("add", first).fails(t, 1, "already in use")
	h.drop()
	b.isGone(h.device)
	for text, want := range map[string]string{
		"0 8 linear disk.img 0": `line 1: linear: device \"disk.img\": not an absolute path`,
		"0 8 linear /none 0":    `line 1: linear: device \"/none\": open /none: no such file`,
		"0 8 thin /none 0":      "line 1: thin: ",
		"0 8 linear 0:0 0":      `line 1: linear: device \"0:0\": no such block device`,
		"0 8 crypt aes-xts-plain64 :64:user:x 0 " + first + " 0":                       "no key",
		"0 8 crypt aes-xts-plain64 " + strings.Repeat("01", 32) + " 0 " + first + " 0": "key in the text of a table",
	} {
		if out := m.curl("-d", fmt.Sprintf(`{"table":%q}`, text), "http://x/v1/devices"); !strings.Contains(out, want) {
			t.Errorf("%s: %s", text, out)
		}
	}
	if list := b.list(); len(list) != 0 {
		t.Errorf("devices %+v", list)
	}
}

// A device of tables outlives its server: after a crash the next one opens the files by their
// paths, and in an upgrade it gets them, even without a name. No I/O fails.
func TestKernelServeTableAgain(t *testing.T) {
	b := kernelBed(t, ublktest.OldestKernel)
	m := b.serve("--on-crash=reissue")
	text, _, second := b.stripes()
	device, zeroes := b.addTable(text, "--queues=1"), b.addTable("0 8 zero")
	p := b.pulse(device)
	goesOn := func() {
		t.Helper()
		blocks := p.blocks.Load()
		waitUntil(t, "I/O goes on", func() bool { return p.blocks.Load() > blocks+2 })
		m.serves(device, zeroes)
	}
	goesOn()
	m.kill()
	b.waits(device)
	m = b.serve()
	goesOn()
	if err := os.Remove(second); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		b.ok("upgrade")
		goesOn()
	}
	b.end(p)
	b.run("add", device.Files[0].File).fails(t, 1, "already in use")
	b.del(device.Device, zeroes.Device)
	if locks := b.locks(); len(locks) != 0 {
		t.Errorf("locks are left: %q", locks)
	}
}

// The store of a snapshot passes from server to server, too: no write is lost, neither in a
// crash nor in an upgrade.
func TestKernelServeTableSnapshot(t *testing.T) {
	b := kernelBed(t, ublktest.Soak)
	m := b.serve("--on-crash=reissue")
	base, store := b.image(2<<20), b.image(4096)
	for _, size := range []int64{0, 4 << 20} { // of zeroes
		b.truncate(store, size)
	}
	was := b.fileText(base)
	device := b.addTable(fmt.Sprintf("0 4096 snapshot %s %s P 8", base, store))
	if device.PID != m.pid() {
		t.Errorf("device %+v, want one of process %d", device, m.pid())
	}
	b.keepsWritesWhile(device, func() {
		b.ok("upgrade")
		m.kill()
		m = b.serve()
	})
	m.serves(device)
	b.metersStore(m, device.Device, store)
	b.del(device.Device)
	if b.fileText(base) != was {
		t.Error("the base of the snapshot has changed")
	}
}

// metersStore checks that the metrics have the use of a device's store that its file has.
func (b *bed) metersStore(m *many, device, store string) {
	b.Helper()
	var info struct {
		Allocated uint64 `json:"allocated_bytes"`
	}
	b.decode(b.ok("cow", "info", "--json", store), &info)
	labels := fmt.Sprintf("{device=%q,file=%q}", filepath.Base(device), store)
	want := fmt.Sprintf("ublk_loop_store_allocated_bytes%s %d\nublk_loop_store_failed%s 0\n", labels, info.Allocated, labels)
	text := m.metrics()
	for line := range strings.Lines(want) {
		if !strings.Contains(text, line) {
			b.Errorf("the metrics lack %s:\n%s", line, text)
		}
	}
}

// An upgrade hands the keys of tables on. After a crash the device waits for its keys, which
// the command key and recover find.
func TestKernelServeTableWithKey(t *testing.T) {
	b := kernelBed(t)
	m := b.serve("--on-crash=reissue")
	b.addKeyForTest("ublk-loop:served", randomBytes(64))
	file := b.image(2 << 20)
	text := fmt.Sprintf("0 4096 crypt aes-xts-plain64 :64:user:ublk-loop:served 0 %s 0", file)
	if device := b.addTable(text); device.OnCrash != "fail" {
		t.Errorf("without --on-crash a device with a key gets %s", device.OnCrash)
	}
	b.del(file)
	device := b.addTable(text, "--on-crash=reissue")
	if device.PID != m.pid() {
		t.Errorf("device %+v, want one of process %d", device, m.pid())
	}
	data := randomBytes(int(device.Size))
	b.store(device.Device, data)
	if stored := b.fileText(file); stored == string(data) {
		t.Error("the file has the data as it is")
	}
	for range 2 {
		b.ok("upgrade")
		m.serves(device)
		b.holds(device.Device, data)
	}
	m.kill()
	m = b.serve()
	b.ok("key", device.Device)
	m.serves(device)
	b.holds(device.Device, data)
	m.kill()
	m = b.serve()
	if left := m.unrecovered(); len(left) != 1 || left[0].ID != device.ID || !strings.Contains(left[0].Error, "no key") {
		t.Errorf("the server says %+v", left)
	}
	b.recover(device)
	b.holds(device.Device, data)
	b.del(device.Device)
}
