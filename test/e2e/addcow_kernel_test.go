package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// Several devices of one image have their changes in stores of their own, which are made when
// they are missing. The image does not change, and no other device writes to it.
func TestKernelAddCow(t *testing.T) {
	b := kernelBed(t, ublktest.OldestKernel)
	base := b.image(8 << 20)
	before := b.readFile(base)
	store := func(name string) string { return filepath.Join(filepath.Dir(base), name) }

	first := b.add(base, "--cow", store("first"))
	second := b.add(base, "--cow", store("second")+",chunk=4K", "--zero-copy", "off")
	third := b.add(base, "--cow", store("third")+",transient")
	for i, s := range []client.Device{first, second, third} {
		b.writeBlock(s, 3, byte(100+i))
	}
	for i, s := range []client.Device{first, second, third} {
		b.hasBlock(s, 3, byte(100+i))
		b.hasBlock(s, 4, before[4*4096])
	}
	b.run("add", base).fails(t, 1, base)
	b.run("add", base, "--cow", store("first")).fails(t, 1, store("first"), "in use")
	for _, s := range []client.Device{first, second, third} {
		b.del(s.Device)
	}
	if b.readFile(base) != before {
		t.Error("the image has changed")
	}

	b.run("add", base, "--cow", store("second")+",chunk=64K").fails(t, 1, "has chunks of 4096 bytes, not 65536")
	b.run("add", b.image(4<<20), "--cow", store("second")).fails(t, 1, "has changes of another image, of 8388608 bytes")
	second = b.add(base, "--cow", store("second"))
	b.hasBlock(second, 3, 101)
	b.del(second.Device)
	third = b.add(base, "--cow", store("third")+",transient")
	b.hasBlock(third, 3, before[3*4096])
	b.del(third.Device)
}

// writeBlock writes a block of 4 KiB without a flush.
func (b *bed) writeBlock(s client.Device, number int64, value byte) {
	b.Helper()
	f, err := os.OpenFile(s.Device, os.O_RDWR|unix.O_DIRECT, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	page := alignedPage(b)
	copy(page, bytes.Repeat([]byte{value}, len(page)))
	if _, err := f.WriteAt(page, number*int64(len(page))); err != nil {
		b.Fatal(err)
	}
}

// hasBlock checks the first byte of a block of 4 KiB.
func (b *bed) hasBlock(s client.Device, number int64, value byte) {
	b.Helper()
	f, err := os.OpenFile(s.Device, os.O_RDONLY|unix.O_DIRECT, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	page := alignedPage(b)
	if _, err := f.ReadAt(page, number*int64(len(page))); err != nil || page[0] != value {
		b.Errorf("%s: block %d begins with %d, error %v, want %d", s.Device, number, page[0], err, value)
	}
}

// With --on-crash a write that was completed is there after kill -9, also without a flush.
func TestKernelCowKeepsWrites(t *testing.T) {
	b := kernelBed(t, ublktest.OldestKernel)
	base := b.image(8 << 20)
	for _, zeroCopy := range ublktest.Sample(b, 0, "auto", "off") {
		s := b.add(base, "--cow", filepath.Join(t.TempDir(), "store")+",chunk=8K", "--on-crash", "requeue", "--zero-copy", zeroCopy)
		b.checkApart(s)
		for round := range byte(5) {
			for block := range int64(20) {
				b.writeBlock(s, int64(round)*300+7*block, round+byte(block))
			}
			b.killServer(s)
			b.ok("recover", s.Device)
			s = b.list(s.Device)[0]
			for r := range round + 1 {
				for block := range int64(20) {
					b.hasBlock(s, int64(r)*300+7*block, r+byte(block))
				}
			}
		}
		b.del(s.Device)
	}
}

// A device of serve forks. Both devices have what was written before, and then changes of their
// own. The device of the fork is recovered with all of its stores.
func TestKernelForkCommand(t *testing.T) {
	b := kernelBed(t, ublktest.OldestKernel)
	b.serve("--on-crash", "reissue")
	base := b.image(8 << 20)
	store := func(name string) string { return filepath.Join(filepath.Dir(base), name) }
	first := b.add(base, "--cow", store("first"))
	b.writeBlock(first, 3, 100)
	paths := strings.Fields(b.ok("fork", first.Device, store("after"), store("other")))
	if len(paths) != 2 || paths[0] != first.Device {
		t.Fatalf("fork prints %q", paths)
	}
	second := b.list(paths[1])[0]
	for _, s := range []client.Device{first, second} {
		b.hasBlock(s, 3, 100)
	}
	b.writeBlock(first, 3, 101)
	b.writeBlock(second, 3, 102)
	b.writeBlock(first, 4, 103)
	b.hasBlock(first, 3, 101)
	b.hasBlock(second, 3, 102)
	if table := b.list(first.Device)[0].Table; !strings.Contains(table, store("first")) || !strings.Contains(table, store("after")) {
		t.Errorf("table %q", table)
	}
	b.run("fork", first.Device, store("after")).fails(t, 1, store("after"), "file exists")
	b.run("add", base, "--cow", store("first")).fails(t, 1, store("first"))
	b.del(second.Device)
	b.del(first.Device)
}

// A store that becomes full says so in the log of its server, once, and in the metrics of serve.
func TestKernelFullStore(t *testing.T) {
	b := kernelBed(t)
	log := filepath.Join(t.TempDir(), "log")
	full := func(args ...string) (device client.Device, store string) {
		base := b.image(8 << 20)
		store = filepath.Join(filepath.Dir(base), "full.cow")
		b.ok("cow", "create", store, "--origin", base, "--chunk=4K", "--size=16K") // two chunks of data
		device = b.add(append([]string{base, "--cow", store}, args...)...)
		b.writeBlock(device, 0, 1)
		b.writeBlock(device, 1, 1)
		if err := blockError(t, device.Device, 5); err != nil {
			t.Fatal(err)
		}
		disk, err := os.OpenFile(device.Device, os.O_WRONLY|unix.O_DIRECT, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer disk.Close()
		if _, err := disk.WriteAt(alignedPage(b), 5*4096); !errors.Is(err, unix.EIO) {
			t.Errorf("write to a full store: %v", err)
		}
		if err := blockError(t, device.Device, 5); !errors.Is(err, unix.EIO) {
			t.Errorf("read of an invalid snapshot: %v", err)
		}
		return device, store
	}
	device, store := full("--log-file", log)
	b.checkApart(device)
	line := "store " + store + ": Invalid: it was full or could not be written; all requests fail from now on"
	waitUntil(t, "the log has the failure", func() bool { return strings.Contains(b.fileText(log), line) })
	b.del(device.Device)
	if n := strings.Count(b.fileText(log), line); n != 1 {
		t.Errorf("the log has the failure %d times", n)
	}

	m := b.serve("--log-file", log)
	device, store = full()
	line = "store " + store + ": Invalid"
	waitUntil(t, "the log of serve has the failure", func() bool { return strings.Contains(b.fileText(log), line) })
	metric := fmt.Sprintf("ublk_loop_store_failed{device=%q,file=%q} 1\n", filepath.Base(device.Device), store)
	waitUntil(t, "the metrics have "+metric, func() bool { return strings.Contains(m.metrics(), metric) })
	b.del(device.Device)
}

// list shows the use of stores as dmsetup status has it, and warns of one that is nearly full.
func TestKernelListStore(t *testing.T) {
	b := kernelBed(t, ublktest.OldestKernel)
	used := func() {
		t.Helper()
		base := b.image(8 << 20)
		store := filepath.Join(filepath.Dir(base), "store")
		b.ok("cow", "create", store, "--origin", base, "--chunk=4K", "--size=40K") // eight chunks of data
		device := b.add(base, "--cow", store)
		// A busy server may not answer in time, and list then leaves the use out.
		want := func(chunks uint64) {
			t.Helper()
			use := client.StoreStats{File: store, Allocated: (chunks + 2) * 4096, Size: 40 << 10, Metadata: 8192}
			waitUntil(t, fmt.Sprintf("list has %+v", use), func() bool {
				var list []client.Device
				b.decode(b.run("list", "--json", device.Device).out, &list)
				return slices.Equal(list[0].Stores, []client.StoreStats{use})
			})
		}
		want(0)
		for i := range 5 {
			b.writeBlock(device, int64(i), 1)
		}
		want(5)
		waitUntil(t, "list has 70 % used", func() bool { return strings.Contains(b.ok("list", device.Device), "live (70 % used)") })
		b.writeBlock(device, 5, 1)
		warning := fmt.Sprintf("ublk-loop: warning: %s: store %s: 80 %% used\n", device.Device, store)
		waitUntil(t, "list warns: "+warning, func() bool {
			r := b.run("list", device.Device)
			return r.status == 0 && r.err == warning
		})
		b.del(device.Device)
	}
	used()
	s := b.serve()
	used()
	s.stop()
}

// An add that fails leaves no store that it has made, and its image can be written to.
func TestKernelFailedAddLeavesNoStore(t *testing.T) {
	b := kernelBed(t, ublktest.OldestKernel)
	base := b.image(8 << 20)
	other := b.add(b.image(1<<20), "--id", "3")
	dir := t.TempDir()
	store := filepath.Join(dir, "store")
	if err := os.WriteFile(filepath.Join(dir, "text"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{base, "--cow", store, "--id", "3"},
		{base, "--cow", store, "--id", "3", "--standalone"},
		{base, "--cow", filepath.Join(dir, "caf\xe9")},
		{base, "--cow", store, "--log-file", filepath.Join(dir, "missing", "log")},
	} {
		b.run(append([]string{"add"}, args...)...).fails(t, 1)
		if found, err := filepath.Glob(filepath.Join(dir, "*")); err != nil || len(found) != 1 {
			t.Errorf("add %q leaves %q, %v", args, found, err)
		}
		b.del(b.add(base).Device)
	}
	b.run("add", base, "--cow", filepath.Join(dir, "text"), "--id", "3").fails(t, 1)
	if text := b.readFile(filepath.Join(dir, "text")); text != "" {
		t.Errorf("the empty file has %d bytes", len(text))
	}
	// A store that existed stays.
	b.ok("cow", "create", store, "--origin", base)
	b.run("add", base, "--cow", store, "--id", "3").fails(t, 1)
	b.del(b.add(base, "--cow", store).Device)
	b.del(other.Device)
}
