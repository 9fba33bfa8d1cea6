package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// removals are ways to remove a device in use.
var removals = map[string]struct {
	serve bool
	end   func(b *bed, s client.Device)
}{
	"del":          {false, func(b *bed, s client.Device) { b.ok("del", "--force", s.Device) }},
	"del of serve": {true, func(b *bed, s client.Device) { b.ok("del", "--force", s.Device) }},
	"SIGINT":       {false, func(b *bed, s client.Device) { b.interrupt(s.PID) }},
}

// interrupt ends a server with SIGINT.
func (b *bed) interrupt(pid int) {
	b.Helper()
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		b.Fatal(err)
	}
	if err := unix.PidfdSendSignal(pidfd, unix.SIGINT, nil, 0); err != nil {
		b.Fatal(err)
	}
	b.waitForEnd(pidfd)
}

// The removal of a device in use writes its dirty pages first, also if the device would outlive
// its server.
func TestKernelRemovalWritesDirtyPages(t *testing.T) {
	for name, r := range removals {
		for _, onCrash := range []string{"fail", "requeue", "reissue"} {
			t.Run(name+" "+onCrash, func(t *testing.T) {
				b := kernelBed(t, ublktest.OldestKernel)
				if r.serve {
					b.serve()
				}
				s := b.add("--on-crash="+onCrash, b.image(4<<20))
				b.writesDirtyPages(s.Device, s.File, 0, func() { r.end(b, s) })
			})
		}
	}
}

// The same is true of its partitions, which have pages of their own.
func TestKernelRemovalWritesDirtyPagesOfPartition(t *testing.T) {
	for name, r := range removals {
		t.Run(name, func(t *testing.T) {
			b := kernelBed(t, ublktest.Waits)
			if r.serve {
				b.serve()
			}
			s := b.add("--partscan", "--on-crash=reissue", b.partitioned())
			start, err := strconv.ParseInt(strings.TrimSpace(b.readFile(
				fmt.Sprintf("/sys/class/block/%sp2/start", filepath.Base(s.Device)))), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			b.writesDirtyPages(s.Device+"p2", s.File, start*512, func() { r.end(b, s) })
		})
	}
}

// The same is true of the file systems on it.
func TestKernelRemovalWritesFileSystem(t *testing.T) {
	b := kernelBed(t, ublktest.OldestKernel)
	file := b.image(64 << 20)
	s := b.add("--on-crash=reissue", file)
	b.tool("mkfs.ext4", "-q", s.Device)
	dir := t.TempDir()
	b.tool("mount", s.Device, dir)
	defer func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }()
	want := bytes.Repeat([]byte("dirty page"), 1<<20/10)
	if err := os.WriteFile(dir+"/file", want, 0o600); err != nil {
		t.Fatal(err)
	}
	b.ok("del", "--force", s.Device)
	if err := unix.Unmount(dir, 0); err != nil {
		t.Fatal(err)
	}
	s = b.add(file)
	b.tool("mount", s.Device, dir)
	if got, err := os.ReadFile(dir + "/file"); err != nil || !bytes.Equal(got, want) {
		t.Errorf("a file of %d bytes has %d, error %v", len(want), len(got), err)
	}
	if err := unix.Unmount(dir, 0); err != nil {
		t.Fatal(err)
	}
	b.del(s.Device)
}

// Before Linux 7.0 the driver does not tell that a process has a device mapped, and del finds only open
// descriptors. The removal of such a device writes its dirty pages.
func TestKernelRemovalWritesMappedPages(t *testing.T) {
	for _, onCrash := range []string{"fail", "requeue", "reissue"} {
		t.Run(onCrash, func(t *testing.T) {
			b := kernelBed(t, ublktest.OldestKernel)
			s := b.add("--on-crash="+onCrash, b.image(4<<20))
			want := bytes.Repeat([]byte("mapped page"), 1<<20/11)
			mapped := b.mapDisk(s.Device, len(want))
			copy(mapped, want)
			r := b.run("del", s.Device)
			if err := unix.Munmap(mapped); err != nil {
				t.Fatal(err)
			}
			if r.status != 0 {
				r.fails(t, 1, s.Device, "in use")
				b.del(s.Device)
			}
			got, err := os.ReadFile(s.File)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got[:len(want)], want) {
				t.Error("the file does not have what was written to the device")
			}
		})
	}
}

// mapDisk maps the start of a disk.
func (b *bed) mapDisk(path string, size int) []byte {
	b.Helper()
	disk, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = disk.Close() }()
	mapped, err := unix.Mmap(int(disk.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		b.Fatal(err)
	}
	return mapped
}

// A slow disk may take longer than a server that hangs is waited for.
func TestKernelRemovalWritesDirtyPagesSlowly(t *testing.T) {
	b := kernelBed(t, ublktest.Once, ublktest.Waits, ublktest.ScratchDisk)
	b.tool("modprobe", "dm-delay")
	disk := b.testDisk()
	b.tool("dmsetup", "create", "slow", "--noudevsync", "--table", fmt.Sprintf("0 8192 delay %s 0 0 %s 0 1000", disk, disk))
	t.Cleanup(func() { b.tool("dmsetup", "remove", "--retry", "--noudevsync", "slow") })
	path := "/dev/" + strings.TrimSpace(b.tool("dmsetup", "info", "-c", "--noheadings", "-o", "blkdevname", "slow"))
	s := b.add("--queues=1", "--depth=1", "--max-io=32K", "--direct-io=on", path)
	start := time.Now()
	b.writesDirtyPages(s.Device, s.File, 0, func() { b.ok("del", "--force", s.Device) })
	if took := time.Since(start); took < 25*time.Second {
		t.Errorf("the removal takes %v, so that this test shows nothing", took)
	}
}

// Force removes a device with dirty pages whose server hangs, also if the device would outlive its
// server.
func TestKernelRemovalGivesUpDirtyPages(t *testing.T) {
	b := kernelBed(t, ublktest.Once, ublktest.Waits)
	s := b.add("--on-crash=reissue", b.image(4<<20))
	disk, err := os.OpenFile(s.Device, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = disk.Close() }() // loses the pages
	if _, err := disk.WriteAt(make([]byte, 1<<20), 0); err != nil {
		t.Fatal(err)
	}
	b.suspend(s)
	b.ok("del", "--force", s.Device)
	if list := b.list(); len(list) != 0 {
		t.Errorf("left is %+v", list)
	}
}

// writesDirtyPages checks that the end of a device writes the dirty pages of a disk or partition, which starts at
// byte start of the device's file.
func (b *bed) writesDirtyPages(path, file string, start int64, end func()) {
	b.Helper()
	disk, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = disk.Close() }()
	want := bytes.Repeat([]byte("dirty page"), 1<<20/10)
	if _, err := disk.WriteAt(want, 0); err != nil {
		b.Fatal(err)
	}
	end()
	got, err := os.ReadFile(file)
	if err != nil {
		b.Fatal(err)
	}
	if !bytes.Equal(got[start:][:len(want)], want) {
		b.Error("the file does not have what was written to the device")
	}
}
