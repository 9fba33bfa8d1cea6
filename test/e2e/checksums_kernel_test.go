package e2e

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// checkingDisk makes a disk whose driver computes a checksum of each page, and which
// verifies it. The disk handles one request at a time, so that pages wait with their
// checksums.
func (b *bed) checkingDisk() string {
	b.Helper()
	ublktest.NeedsModule(b.TB, "scsi_debug")
	b.tool("modprobe", "sd_mod")
	b.tool("modprobe", "scsi_debug", "dev_size_mb=64", "dix=1", "dif=1", "max_queue=1", "ndelay=500000")
	b.Cleanup(func() {
		waitUntil(b.TB, "scsi_debug unused", func() bool {
			count, err := os.ReadFile("/sys/module/scsi_debug/refcnt")
			return err == nil && strings.TrimSpace(string(count)) == "0"
		})
		b.tool("rmmod", "scsi_debug")
	})
	var disk string
	waitUntil(b.TB, "a disk of scsi_debug", func() bool {
		found, err := filepath.Glob("/sys/bus/pseudo/drivers/scsi_debug/adapter*/host*/target*/*/block/*/integrity/format")
		if err != nil || len(found) != 1 {
			return false
		}
		disk = "/dev/" + filepath.Base(filepath.Dir(filepath.Dir(found[0])))
		f, err := os.Open(disk)
		if err == nil {
			_ = f.Close()
		}
		return err == nil
	})
	return disk
}

// churnSyncs is the number of syncs that churn makes.
const churnSyncs = 20

// churn maps pages of a file or disk, and changes them all the time while it syncs them.
// It returns the number of syncs that failed with EIO.
func (b *bed) churn(path string) (failed int) {
	b.Helper()
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	const size, stride = 64 * 2 * 4096, 2 * 4096 // every second page, so that each is a request
	pages, err := unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		b.Fatal(err)
	}
	var stop atomic.Bool
	stopped := make(chan struct{})
	go func() { // ends after the syncs; the code below waits for it
		defer close(stopped)
		for i := byte(1); !stop.Load(); i++ {
			for at := 0; at < size; at += stride {
				pages[at+int(i)] = i
			}
			// The server may run on the same processor.
			_ = unix.Nanosleep(&unix.Timespec{Nsec: 100_000}, nil)
		}
	}()
	for range churnSyncs {
		switch err := unix.Fdatasync(fd); {
		case errors.Is(err, unix.EIO):
			failed++
		case err != nil:
			b.Errorf("sync: %v", err)
		}
	}
	stop.Store(true)
	<-stopped
	if err := unix.Munmap(pages); err != nil {
		b.Error(err)
	}
	return failed
}

// Pages that change while they are written are stored with correct checksums.
// --zero-copy=on causes a warning. How many syncs fail with it depends on the number of
// processors, so that the test does not check that.
func TestKernelChecksums(t *testing.T) {
	b := kernelBed(t)
	disk := b.checkingDisk()
	type test struct {
		name, flag, reason string
		risk               bool
	}
	tests := []test{
		{"auto", "--zero-copy=auto", "checksums", false},
		{"off", "--zero-copy=off", "asked", false},
	}
	if b.bufferMode() == "copy" {
		tests = append(tests, test{"buffered", "--direct-io=off", "kernel", false})
	} else {
		tests = append(tests, test{"buffered", "--direct-io=off", "", false}, test{"on", "--zero-copy=on", "", true})
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := b.in(t)
			r := b.run("add", tt.flag, disk)
			path := strings.TrimSpace(r.out)
			if warned := strings.Contains(r.err, "may verify checksums"); r.status != 0 || warned != tt.risk {
				t.Errorf("exit status %d, warnings %q", r.status, r.err)
			}
			s := b.list(path)[0]
			if s.CopyReason != tt.reason || (s.BufferMode == "copy") != (tt.reason != "") {
				t.Errorf("buffers %s, copied because of %q, want %q", s.BufferMode, s.CopyReason, tt.reason)
			}
			failed := b.churn(path)
			t.Logf("%d of %d syncs failed", failed, churnSyncs)
			if failed > 0 && !tt.risk {
				t.Errorf("%d of %d syncs failed", failed, churnSyncs)
			}
			b.del(path)
		})
	}
}

// Btrfs also verifies checksums, but it copies pages before it computes them. A file on
// Btrfs keeps zero copy, and stays readable.
func TestKernelChecksumsOfBtrfs(t *testing.T) {
	b := kernelBed(t)
	b.tool("modprobe", "btrfs")
	disk := b.loopDisk("", b.image(256<<20))
	b.tool("mkfs.btrfs", "-q", "-f", disk)
	dir := t.TempDir()
	b.tool("mount", disk, dir)
	defer b.tool("umount", dir)
	path := filepath.Join(dir, "image")
	if err := os.WriteFile(path, make([]byte, 4<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	s := b.add("-b", "4096", "--direct-io=on", path)
	if s.CopyReason != "" && s.CopyReason != "kernel" || !s.DirectIO {
		t.Errorf("direct I/O %v, copied because of %q", s.DirectIO, s.CopyReason)
	}
	if failed := b.churn(s.Device); failed > 0 {
		t.Errorf("%d of %d syncs failed", failed, churnSyncs)
	}
	b.del(s.Device)
	b.tool("sync")
	if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := os.ReadFile(path); err != nil {
		t.Errorf("what was stored: %v", err)
	}
}

// integrityDisk makes a disk that stores a checksum of each sector with the sector, and
// has no journal, in which it would copy the data (dm-integrity). It has a UUID as if
// integritysetup had made it. The kernel formats it
// when its first sector is zero, and only then knows its size.
func (b *bed) integrityDisk() string {
	b.Helper()
	b.tool("modprobe", "dm_integrity")
	const name = "ublk-loop-integrity"
	below := b.loopDisk("", b.image(160<<20))
	b.tool("blkdiscard", "-z", "-l", "4096", below)
	table := func(sectors string) string {
		return "0 " + sectors + " integrity " + below + " 0 - D 1 internal_hash:crc32c"
	}
	b.tool("dmsetup", "create", "--noudevsync", name, "--table", table("1"))
	status := strings.Fields(b.tool("dmsetup", "status", name)) // 0 1 integrity MISMATCHES SECTORS …
	b.tool("dmsetup", "remove", "--retry", "--noudevsync", name)
	b.tool("dmsetup", "create", "--noudevsync", "--uuid", "CRYPT-INTEGRITY-"+name, name, "--table", table(status[4]))
	b.Cleanup(func() { b.tool("dmsetup", "remove", "--retry", "--noudevsync", name) })
	disk := "/dev/" + strings.TrimSpace(b.tool("dmsetup", "info", "-c", "--noheadings", "-o", "blkdevname", name))
	b.tool("blkdiscard", "-f", "-z", disk) // no sector has a checksum yet
	return disk
}

// What was written over dm-integrity can be read again, on the disk itself, through
// another disk above it, through a file on it, and through an overlay over that.
func TestKernelChecksumsOfIntegrity(t *testing.T) {
	b := kernelBed(t)
	disk := b.integrityDisk()
	for name, path := range map[string]func(b *bed) string{
		"disk":                              func(*bed) string { return disk },
		"a disk above":                      func(b *bed) string { return b.mapped("--table", linear(disk, "0")) },
		"a file":                            func(b *bed) string { return b.fileOn(disk) },
		"a file of btrfs without checksums": func(b *bed) string { return b.fileOnBtrfs(disk, b.loopDisk("", b.image(160<<20))) },
		"a file of an overlay":              func(b *bed) string { return b.overlaid(b.fileOn(disk)) },
	} {
		t.Run(name, func(t *testing.T) {
			b := b.in(t)
			path := path(b)
			s := b.add("-b", "4096", "--direct-io=on", path)
			if s.BufferMode != "copy" || s.CopyReason != "checksums" && s.CopyReason != "kernel" {
				t.Errorf("buffers %s, copied because of %q", s.BufferMode, s.CopyReason)
			}
			if failed := b.churn(s.Device); failed > 0 {
				t.Errorf("%d of %d syncs failed", failed, churnSyncs)
			}
			b.del(s.Device)
			b.tool("sync")
			if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("1"), 0); err != nil {
				t.Fatal(err)
			}
			b.tool("dd", "if="+path, "of=/dev/null", "bs=64k", "count=64")
		})
	}
}

// fileOn makes a file of 4 MiB on a file system on a disk.
func (b *bed) fileOn(disk string) string {
	b.Helper()
	b.tool("mkfs.ext4", "-q", "-F", disk)
	dir := b.TempDir()
	b.tool("mount", disk, dir)
	b.Cleanup(func() { b.tool("umount", dir) })
	path := filepath.Join(dir, "upper", "image")
	for _, name := range []string{"upper", "work", "lower"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			b.Fatal(err)
		}
	}
	if err := os.WriteFile(path, make([]byte, 4<<20), 0o600); err != nil {
		b.Fatal(err)
	}
	return path
}

// overlaid mounts an overlay over the directory of a file of fileOn, and returns the
// file's path there.
func (b *bed) overlaid(path string) string {
	b.Helper()
	upper, dir := filepath.Dir(path), b.TempDir()
	top := filepath.Dir(upper)
	b.tool("modprobe", "overlay")
	b.tool("mount", "-t", "overlay", "-o", "lowerdir="+top+"/lower,upperdir="+upper+",workdir="+top+"/work", "overlay", dir)
	b.Cleanup(func() { b.tool("umount", dir) })
	return filepath.Join(dir, filepath.Base(path))
}

// fileOnBtrfs makes a file of 4 MiB, without checksums, on a btrfs of two disks.
func (b *bed) fileOnBtrfs(disks ...string) string {
	b.Helper()
	b.tool("modprobe", "btrfs")
	b.tool("mkfs.btrfs", append([]string{"-q", "-f", "-d", "raid1"}, disks...)...)
	dir := b.TempDir()
	b.tool("mount", "-o", "nodatacow,device="+disks[0]+",device="+disks[1], disks[0], dir)
	b.Cleanup(func() { b.tool("umount", dir) })
	path := filepath.Join(dir, "image")
	if err := os.WriteFile(path, make([]byte, 4<<20), 0o600); err != nil {
		b.Fatal(err)
	}
	return path
}
