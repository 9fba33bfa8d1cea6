package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
)

// loopDisk binds a file to a loop device of the kernel. An empty path stands for a free
// device.
func (b *bed) loopDisk(path, file string) string {
	b.Helper()
	b.tool("modprobe", "loop")
	if path == "" {
		path = strings.TrimSpace(b.tool("losetup", "-f"))
	}
	b.tool("losetup", "-P", path, file)
	b.Cleanup(func() { b.tool("losetup", "-d", path) })
	return path
}

// rebind binds a loop device to another file.
func (b *bed) rebind(path, file string) {
	b.Helper()
	b.tool("losetup", "-d", path)
	// The kernel unbinds the device when its last user closes it. The ring of a killed
	// server does that after the end of the process.
	waitUntil(b, "the loop device is free", func() bool {
		_, err := os.Stat(filepath.Join("/sys/block", filepath.Base(path), "loop"))
		return errors.Is(err, fs.ErrNotExist)
	})
	b.tool("losetup", "-P", path, file)
}

// mapped makes a device-mapper device from a table.
func (b *bed) mapped(args ...string) string {
	b.Helper()
	b.tool("modprobe", "dm_mod")
	const name = "ublk-loop-recover"
	b.tool("dmsetup", append([]string{"create", "--noudevsync", name}, args...)...)
	b.Cleanup(func() { b.tool("dmsetup", "remove", "--retry", "--noudevsync", name) })
	return "/dev/" + strings.TrimSpace(b.tool("dmsetup", "info", "-c", "--noheadings", "-o", "blkdevname", name))
}

// remapped removes the device of mapped, and makes another one with the same number.
func (b *bed) remapped(args ...string) {
	b.Helper()
	const name = "ublk-loop-recover"
	b.tool("dmsetup", "remove", "--retry", "--noudevsync", name)
	b.tool("dmsetup", append([]string{"create", "--noudevsync", name}, args...)...)
}

// changedDisk is a disk that another disk replaces while the server is away.
type changedDisk struct {
	name   string
	disk   func(b *bed) string
	change func(b *bed, disk string)
	same   bool // the administrator considers both the same disk
	text   string
}

// linear returns a table for 4 MiB of a disk, from a sector on.
func linear(disk, start string) string { return "0 8192 linear " + disk + " " + start }

func changedDisks() []changedDisk {
	var below, other string // the disk below a partition or a mapping
	twoFiles := func(b *bed) {
		below, other = b.loopDisk("", b.image(16<<20)), b.image(16<<20)
	}
	mapped := func(args ...string) func(b *bed) string {
		return func(b *bed) string {
			twoFiles(b)
			return b.mapped(append(args, "--table", linear(below, "0"))...)
		}
	}
	remapped := func(args ...string) func(b *bed, _ string) {
		return func(b *bed, _ string) { b.remapped(append(args, "--table", linear(below, "8192"))...) }
	}
	partitioned := func(b *bed) string {
		below, other = b.loopDisk("", b.partitionedFile()), b.image(16<<20)
		return below + "p1"
	}
	const uuid = "UBLKLOOP-test"
	return []changedDisk{
		{name: "another file", disk: func(b *bed) string { twoFiles(b); return below }, change: func(b *bed, disk string) { b.rebind(disk, other) }},
		{name: "a partition elsewhere", disk: partitioned, change: func(b *bed, _ string) { b.moveWhenUnused(below) }},
		{name: "a partition elsewhere with another number", disk: partitioned, change: func(b *bed, path string) {
			was := numberOf(b, path)
			b.moveWhenUnused(below)
			waitUntil(b, "the partition has another number", func() bool {
				b.tool("sfdisk", "-q", "--delete", below)
				b.loopDisk("", b.partitionedFile()) // its partition may get the number, which becomes free later
				b.movePartition(below)
				return numberOf(b, path) != was
			})
		}},
		{name: "a partition of another disk", disk: partitioned, change: func(b *bed, _ string) {
			b.tool("cp", fileOf(b, below), other)
			b.rebind(below, other)
		}},
		{name: "another mapping of the name", disk: mapped(), change: remapped()},
		{name: "another UUID", disk: mapped("--uuid", uuid), change: remapped("--uuid", uuid+"2")},
		{name: "the volume activated again", disk: mapped("--uuid", uuid), change: remapped("--uuid", uuid), same: true},
		{name: "another table", disk: mapped(), same: true, change: func(b *bed, _ string) {
			b.tool("dmsetup", "reload", "ublk-loop-recover", "--table", linear(below, "8192"))
			b.tool("dmsetup", "resume", "--noudevsync", "ublk-loop-recover")
		}},
		{name: "a file on another disk", text: "another file", disk: func(b *bed) string {
			twoFiles(b)
			b.tool("mkfs.ext4", "-q", "-F", below)
			dir := b.TempDir()
			b.tool("mount", below, dir)
			b.Cleanup(func() { _ = unix.Unmount(dir, 0) })
			path := filepath.Join(dir, "image")
			if err := os.WriteFile(path, make([]byte, 4<<20), 0o600); err != nil {
				b.Fatal(err)
			}
			return path
		}, change: func(b *bed, path string) {
			// The ring of a killed server closes the file after the end of the process.
			waitUntil(b.TB, "unmounted", func() bool { return unix.Unmount(filepath.Dir(path), 0) == nil })
			b.tool("cp", fileOf(b, below), other)
			b.rebind(below, other)
			b.tool("mount", below, filepath.Dir(path))
		}},
	}
}

// moveWhenUnused moves the partition of a disk when the ring of a killed server has let go of it.
func (b *bed) moveWhenUnused(disk string) {
	b.Helper()
	waitUntil(b, "the killed server's ring has let go of the partition", func() bool {
		return exec.Command("blockdev", "--rereadpt", disk).Run() == nil
	})
	b.movePartition(disk)
}

func (b *bed) movePartition(disk string) {
	b.Helper()
	b.tool("sh", "-c", `echo "start=8192,size=8192" | sfdisk -q "$0"`, disk)
}

// partitionedFile makes an image of a disk with a partition.
func (b *bed) partitionedFile() string {
	b.Helper()
	file := b.image(16 << 20)
	b.tool("sh", "-c", `echo "start=2048,size=8192" | sfdisk -q --no-tell-kernel "$0"`, file)
	return file
}

// numberOf returns the device number of a disk.
func numberOf(b *bed, disk string) uint64 {
	b.Helper()
	var st unix.Stat_t
	if err := unix.Stat(disk, &st); err != nil {
		b.Fatal(err)
	}
	return st.Rdev
}

// fileOf returns the file of a loop device.
func fileOf(b *bed, disk string) string {
	b.Helper()
	return strings.TrimSpace(b.tool("losetup", "--noheadings", "-O", "BACK-FILE", disk))
}

// waitingWrite writes to a device whose server is stopped. The channel receives the
// result of the write. The write is direct, so that sync(2), which sfdisk calls, does not
// wait for it.
func (b *bed) waitingWrite(s client.Device) <-chan error {
	b.Helper()
	page, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = unix.Munmap(page) })
	copy(page, "the write that waited")
	fd, err := unix.Open(s.Device, unix.O_WRONLY|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err != nil {
		b.Fatal(err)
	}
	wrote := make(chan error, 1)
	go func() { // the caller receives the result
		_, err := unix.Pwrite(fd, page, 0)
		_ = unix.Close(fd)
		wrote <- err
	}()
	waitUntil(b.TB, "the write waits", func() bool { return b.attr(s, "inflight") != "0        0" })
	return wrote
}

// Waiting requests go to the disk that they were sent to, or fail. Another disk may have
// its name and number by then.
func TestKernelRecoverAnotherDisk(t *testing.T) {
	b := kernelBed(t)
	for _, tt := range changedDisks() {
		t.Run(tt.name, func(t *testing.T) { b.in(t).recoverChanged(&tt) })
	}
}

func (b *bed) recoverChanged(tt *changedDisk) {
	b.Helper()
	path := tt.disk(b)
	add := []string{"--id", "5", "--on-crash=reissue", "--direct-io=off", path}
	m := b.serve()
	s := b.add(add...)
	b.Cleanup(func() { _ = b.run("del", "--force", s.Device) }) // a failed test must not make the next one fail
	b.suspend(s)
	wrote := b.waitingWrite(s)
	m.kill()
	tt.change(b, path)
	before := b.head(path)
	if tt.same {
		m = b.serve()
		m.serves(s)
		if err := <-wrote; err != nil {
			b.Errorf("the write that waited: %v", err)
		}
		b.del(s.Device)
		m.stop()
		return
	}
	text := tt.text
	if text == "" {
		text = "another disk"
	}
	b.run("recover", s.Device).fails(b.TB, 1, s.Device, path, text)
	b.run(append([]string{"add"}, add...)...).fails(b.TB, 1, s.Device, path, text)
	m = b.serve() // takes over all devices that it can
	b.waits(s)
	m.stop()
	b.waits(s)
	// The other disk or file has no device.
	r := b.run("del", "--force", path)
	if want := fmt.Sprintf("ublk-loop: warning: %s: %s has another file or disk, which had this path before, and stays\n", path, s.Device); r.status != 0 || r.out != "" || r.err != want {
		b.Errorf("del %s: exit status %d, output %q, errors %q, want %q", path, r.status, r.out, r.err, want)
	}
	b.waits(s)
	b.del("--force", s.Device)
	if err := <-wrote; err == nil {
		b.Error("the write that waited has succeeded")
	}
	if !bytes.Equal(b.head(path), before) {
		b.Error("the other disk was written to")
	}
}
