package e2e

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/uapi"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// canResize reports whether the driver can resize. If not, it checks that resize fails
// with an error and changes nothing.
func (b *bed) canResize() bool {
	b.Helper()
	offered, err := b.ctl.Features()
	if err != nil {
		b.Fatal(err)
	}
	has := offered.Has(uapi.UBLK_F_UPDATE_SIZE)
	ublktest.CheckAbility(b, ublktest.UpdateSize, has)
	if has {
		return true
	}
	s := b.add(b.image(4 << 20))
	b.truncate(s.File, 8<<20)
	b.run("resize", s.Device).fails(b, 1, s.Device, "not supported by this kernel", "hint: Linux 6.16")
	b.hasSize(s, 4<<20)
	b.del(s.Device)
	b.Log("this kernel has no UPDATE_SIZE")
	return false
}

func (b *bed) truncate(path string, size int64) {
	b.Helper()
	if err := os.Truncate(path, size); err != nil {
		b.Fatal(err)
	}
}

// hasSize checks the device's size as its users, list and its state file show it.
func (b *bed) hasSize(s client.Device, want uint64) {
	b.Helper()
	f, err := os.Open(s.Device)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	if end, err := f.Seek(0, unix.SEEK_END); err != nil || uint64(end) != want {
		b.Errorf("%s ends at %d, error %v; want %d", s.Device, end, err, want)
	}
	if list := b.list(s.Device); list[0].Size != want {
		b.Errorf("list shows %d bytes, want %d", list[0].Size, want)
	}
	data, err := os.ReadFile(filepath.Join("/run/ublk-loop", filepath.Base(s.Device)[len("ublkb"):]+".json"))
	if err != nil {
		b.Fatal(err)
	}
	var state struct{ Status client.Device }
	b.decode(string(data), &state)
	if state.Status.Size != want || state.Status.PID != s.PID {
		b.Errorf("the state has %d bytes and process %d, want %d and %d", state.Status.Size, state.Status.PID, want, s.PID)
	}
}

// A mounted file system grows up to the new end of its file.
func TestKernelResizeMounted(t *testing.T) {
	b := kernelBed(t, ublktest.EveryKernel)
	if !b.canResize() {
		return
	}
	for _, zeroCopy := range ublktest.Sample(b, 0, "auto", "off") {
		t.Run("zero copy "+zeroCopy, func(t *testing.T) { b.in(t).growMounted("--zero-copy", zeroCopy) })
	}
}

func (b *bed) growMounted(flags ...string) {
	b.Helper()
	const was, is = 64 << 20, 160 << 20
	s := b.add(append(flags, b.image(was))...)
	b.tool("mkfs.ext4", "-q", "-F", s.Device)
	dir := b.TempDir()
	b.tool("mount", s.Device, dir)
	mounted := true
	defer func() {
		if mounted {
			_ = unix.Unmount(dir, unix.MNT_DETACH)
		}
	}()
	data := bytes.Repeat([]byte("before it grew. "), 1<<16)
	if err := os.WriteFile(dir+"/before", data, 0o600); err != nil {
		b.Fatal(err)
	}
	b.truncate(s.File, is)
	b.hasSize(s, was)
	if out := b.ok("resize", s.Device); out != "" {
		b.Errorf("resize prints %q", out)
	}
	b.hasSize(s, is)
	b.tool("resize2fs", s.Device)
	// Write more than fits without the new space, and verify it.
	b.tool("fio", "--name=w", "--filename="+dir+"/after", "--size=96M", "--rw=write", "--bs=256k", "--verify=crc32c",
		"--do_verify=1", "--verify_fatal=1", "--end_fsync=1", "--direct=1")
	if got, err := os.ReadFile(dir + "/before"); err != nil || !bytes.Equal(got, data) {
		b.Errorf("what was there before has changed, error %v", err)
	}
	if err := unix.Unmount(dir, 0); err != nil {
		b.Fatal(err)
	}
	mounted = false
	b.tool("e2fsck", "-fn", s.Device)
	b.writeSector(s.Device, is-512)
	b.del(s.Device)
	b.tool("e2fsck", "-fn", s.File)
}

// writeSector writes a sector and reads it back.
func (b *bed) writeSector(device string, at int64) {
	b.Helper()
	f, err := os.OpenFile(device, os.O_RDWR|unix.O_SYNC, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	want, got := bytes.Repeat([]byte{0xa5}, 512), make([]byte, 512)
	if _, err := f.WriteAt(want, at); err != nil {
		b.Errorf("write at %d: %v", at, err)
	}
	if _, err := f.ReadAt(got, at); err != nil || !bytes.Equal(got, want) {
		b.Errorf("read at %d: error %v, or other bytes", at, err)
	}
}

// A device grows and shrinks as requested, by offset, limit and name, and while it has
// users. An impossible resize fails and changes nothing.
func TestKernelResize(t *testing.T) {
	b := kernelBed(t, ublktest.EveryKernel)
	if !b.canResize() {
		return
	}
	const mib = 1 << 20
	s := b.add("--offset", "1M", "--sizelimit", "4M", "--sector-size", "4096", b.image(16*mib))
	opened, err := os.OpenFile(s.Device, os.O_RDWR|unix.O_DIRECT, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer opened.Close()
	b.hasSize(s, 4*mib)
	b.ok("resize", s.Device)
	b.hasSize(s, 4*mib) // the limit
	b.ok("resize", s.File, "15M")
	b.hasSize(s, 15*mib)
	for _, tt := range []struct{ size, hint string }{
		{"15728639", "hint: the next smaller multiple is 15724544"},
		{"16M", "hint: truncate"},
		{"15732736", "hint: truncate"},
		{"512", ""},
		{"4097", "hint: the next smaller multiple is 4096"},
	} {
		b.run("resize", s.Device, tt.size).fails(t, 1, s.Device, "invalid argument", tt.hint)
	}
	b.hasSize(s, 15*mib)
	b.ok("resize", fmtID(s), "2M")
	b.hasSize(s, 2*mib)
	page := alignedPage(t)
	if n, err := opened.WriteAt(page, 3*mib); err == nil {
		t.Errorf("%d bytes are written behind the end of a device that was shrunk under its user", n)
	}
	if _, err := opened.WriteAt(page, mib); err != nil {
		t.Errorf("write before the new end: %v", err)
	}
	// The server finds the truncated file by its descriptor, not by its name.
	b.truncate(s.File, 4*mib)
	if err := os.Rename(s.File, s.File+".moved"); err != nil {
		t.Fatal(err)
	}
	b.run("resize", s.Device, "4M").fails(t, 1, s.Device, "the file has 3145728")
	b.ok("resize", s.Device)
	b.hasSize(s, 3*mib)
	opened.Close()
	b.del(s.Device)
	b.run("resize", s.Device).fails(t, 1, s.Device, "no such device")
}

func fmtID(s client.Device) string { return filepath.Base(s.Device)[len("ublkb"):] }

// alignedPage returns memory that suits direct I/O.
func alignedPage(t testing.TB) []byte {
	t.Helper()
	mem, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Munmap(mem) })
	return mem
}

// A device follows a growing disk in the same way as a growing file.
func TestKernelResizeDisk(t *testing.T) {
	b := kernelBed(t, ublktest.EveryKernel)
	if !b.canResize() {
		return
	}
	under := b.add("--sizelimit", "4M", b.image(16<<20))
	s := b.add(under.Device)
	b.hasSize(s, 4<<20)
	b.ok("resize", under.Device, "12M")
	b.ok("resize", s.Device)
	b.hasSize(s, 12<<20)
	b.writeSector(s.Device, 12<<20-512)
	b.del(s.Device)
	b.del(under.Device)
}

// resize does not change a device without a server, a device of another program, or a
// device that is being removed, and does not disturb the kernel.
func TestKernelResizeRefused(t *testing.T) {
	b := kernelBed(t)
	if !b.canResize() {
		return
	}
	s := b.add(b.image(4 << 20))
	b.killServer(s)
	b.run("resize", s.Device).fails(t, 1, s.Device, "it has no server")
	b.del(s.Device)
	dev, err := b.ctl.Add(ublk.Options{Queues: 1, Depth: 1, Tag: 4711})
	if err != nil {
		t.Fatal(err)
	}
	b.run("resize", dev.BlockPath(), "1M").fails(t, 1, dev.BlockPath(), "not a device of ublk-loop")
	if err := dev.Close(); err != nil {
		t.Fatal(err)
	}
	for range 8 { // concurrent with its removal
		s := b.add(b.image(4 << 20))
		resize := b.command("resize", s.Device, "2M")
		if err := resize.Start(); err != nil {
			t.Fatal(err)
		}
		b.del(s.Device)
		_ = resize.Wait()
	}
}

// After many concurrent resizes, list and the state file show the last one.
func TestKernelResizeAtOnce(t *testing.T) {
	b := kernelBed(t, ublktest.EveryKernel)
	if !b.canResize() {
		return
	}
	s := b.add(b.image(16 << 20))
	results := make(chan result)
	for i := range 8 {
		go func() { // until its command has ended; received below
			results <- b.run("resize", s.Device, string(rune('1'+i))+"M")
		}()
	}
	for range 8 {
		r := <-results
		r.succeeds(t)
	}
	b.hasSize(s, b.list(s.Device)[0].Size)
	b.del(s.Device)
}
