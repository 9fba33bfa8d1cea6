package main

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"testing"
	"unsafe"

	csi "github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// Where files cannot share blocks, the first copy of a volume in use gives its device a store. The copy
// takes no space of its own, and shows what the file system had when it was frozen.
func TestKernelFirstLayers(t *testing.T) {
	b := newBed(t, ublktest.OldestAndNewest)
	b.start("--overcommit", "8") // on tmpfs
	b.checkCopies()
}

// The first copies of a volume in use take the space of what is written afterwards.
func TestKernelFirstLayersSpace(t *testing.T) {
	b := newBed(t, ublktest.Once)
	b.start() // on tmpfs
	v := b.create("data", 32*mib, blockAccess(writers))
	first, second, third := content(5, 8*mib), content(6, mib), content(7, mib)
	b.put(v.use("a"), first)
	snapshot := v.snapshot("s")
	clone := b.create("clone", 32*mib, v.access, fromVolume(v.id))
	if n := b.allocated(); n < 8*mib || n > 9*mib {
		t.Errorf("%d bytes are allocated", n)
	}
	b.put(v.file("a"), second)
	later := v.snapshot("later")
	b.put(v.file("a"), third)
	b.put(clone.use("a"), second)
	restored, more := b.create("restored", 32*mib, v.access, fromSnapshot(snapshot)), b.create("more", 32*mib, v.access, fromSnapshot(later))
	b.server.end(unix.SIGKILL) // the next server finds the layers of the devices
	b.serve()
	b.has(v.file("a"), append(third, first[mib:]...))
	v.leave("a")
	v.remove()
	b.deleteSnapshot(snapshot)
	b.deleteSnapshot(later)
	b.has(restored.use("a"), first)
	b.has(more.use("a"), append(second, first[mib:]...))
	b.has(clone.file("a"), append(second, first[mib:]...))
	for _, v := range []*volume{restored, more, clone} {
		v.leave("a")
		v.remove()
	}
	b.isClean()
}

// A volume that grows in use is copied in use before and after its device has the new size. Where the
// kernel cannot do that, the copy is refused until the volume is staged again.
func TestKernelCopyAfterGrowth(t *testing.T) {
	b := newBed(t, ublktest.OldestAndNewest)
	b.start("--overcommit", "8") // on tmpfs
	v := b.create("grows", 16*mib, blockAccess(writers))
	data := content(8, 40*mib)
	v.use("a")
	b.put(v.file("a"), data[:16*mib])
	if !b.updateSize(v.grow("a", 48*mib)) {
		_, err := v.trySnapshot("s")
		b.refused("snapshot of a device that has not grown", err, codes.FailedPrecondition, "stop its pods")
		v.leave("a")
		v.use("a")
	}
	b.put(v.file("a"), data)
	snapshot := v.snapshot("s")
	b.put(v.file("a"), content(9, 20*mib))
	restored := b.create("restored", 48*mib, v.access, fromSnapshot(snapshot))
	b.has(restored.use("a"), data)
	b.refused("grow with layers", v.grow("a", 64*mib), codes.FailedPrecondition, "staged again")
	for _, v := range []*volume{v, restored} {
		v.leave("a")
		v.remove()
	}
	b.deleteSnapshot(snapshot)
	b.isClean()
}

// A thick volume that is copied in use stays thick: a write to it never needs space that it does not have.
// A copy that would leave too little space is refused.
func TestKernelThickLayers(t *testing.T) {
	b := newBed(t, ublktest.Once)
	thick := func(req *csi.CreateVolumeRequest) { req.Parameters = map[string]string{"provisioning": "thick"} }
	b.startWith(80 * mib) // on tmpfs
	v := b.create("data", 32*mib, blockAccess(writers), thick)
	first, second := content(5, 24*mib), content(6, 24*mib)
	b.put(v.use("a"), first)
	if n := b.allocated(); n < 32*mib {
		t.Errorf("the volume has %d bytes", n)
	}
	snapshot := v.snapshot("s")
	before := b.allocated()
	if before < 64*mib {
		t.Errorf("volume and snapshot have %d bytes", before)
	}
	b.put(v.file("a"), second)
	if now := b.allocated(); now != before {
		t.Errorf("%d bytes are allocated, %d before the write", now, before)
	}
	_, err := v.trySnapshot("more")
	b.refused("snapshot without space", err, codes.ResourceExhausted, "reserves")
	_, err = b.controller.CreateVolume(b.Context(), creation("clone", 0, v.access, thick, fromVolume(v.id)))
	b.refused("clone without space", err, codes.ResourceExhausted, "space")
	b.has(v.file("a"), second)
	v.leave("a")
	v.remove()
	restored := b.create("restored", 32*mib, v.access, thick, fromSnapshot(snapshot))
	b.has(restored.use("a"), first)
	b.put(restored.file("a"), second)
	b.has(restored.file("a"), second)
	restored.leave("a")
	restored.remove()
	b.deleteSnapshot(snapshot)
	b.isClean()
}

// A thick volume has all of its blocks, whatever its users do: discards and fstrim are refused, and zeroes
// are written. A thin volume gives back the space.
func TestKernelThickKeepsSpace(t *testing.T) {
	b := newBed(t, ublktest.OldestAndNewest)
	b.start() // on tmpfs
	for _, provisioning := range []string{"thick", "thin"} {
		change := func(req *csi.CreateVolumeRequest) { req.Parameters = map[string]string{"provisioning": provisioning} }
		isThick := provisioning == "thick"
		block := b.create("block-"+provisioning, 16*mib, blockAccess(writers), change)
		b.put(block.use("a"), content(1, 16*mib))
		if err := b.change(block.file("a"), unix.BLKDISCARD, 8*mib); errors.Is(err, unix.EOPNOTSUPP) != isThick {
			t.Errorf("discard of a %s volume: error %v", provisioning, err)
		}
		b.ok("zeroes", b.change(block.file("a"), unix.BLKZEROOUT, 12*mib))
		b.has(block.file("a"), append(make([]byte, 0, 4*mib), content(1, 16*mib)[:4*mib]...))
		if n := b.allocated(); n >= 16*mib != isThick {
			t.Errorf("the %s volume has %d bytes after a discard", provisioning, n)
		}
		block.leave("a")
		block.remove()
		fs := b.create("fs-"+provisioning, 16*mib, mountAccess("ext4", writers), change)
		b.put(filepath.Join(fs.use("a"), "file"), content(2, 8*mib))
		b.ok("remove", os.Remove(fs.file("a")))
		if err := b.trim(fs.target("a")); errors.Is(err, unix.EOPNOTSUPP) != isThick {
			t.Errorf("fstrim of a %s volume: error %v", provisioning, err)
		}
		if n := b.allocated(); n >= 16*mib != isThick {
			t.Errorf("the %s volume has %d bytes after fstrim", provisioning, n)
		}
		fs.leave("a")
		fs.remove()
	}
	b.isClean()
}

// change discards or zeroes 4 MiB of a device.
func (b *bed) change(path string, request uint, at uint64) error {
	b.Helper()
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_DIRECT, 0)
	b.ok("open", err)
	defer func() { _ = f.Close() }()
	part := [2]uint64{at, 4 * mib}
	return ioctl(f, request, unsafe.Pointer(&part))
}

// fitrim is FITRIM in linux/fs.h.
const fitrim = 0xc0185879

// trim does what fstrim(8) does with a mounted file system.
func (b *bed) trim(path string) error {
	b.Helper()
	f, err := os.Open(path)
	b.ok("open", err)
	defer func() { _ = f.Close() }()
	all := [3]uint64{0, math.MaxUint64, 0} // struct fstrim_range in linux/fs.h
	return ioctl(f, fitrim, unsafe.Pointer(&all))
}

func ioctl(f *os.File, request uint, argument unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), uintptr(request), uintptr(argument)); errno != 0 {
		return errno
	}
	return nil
}

// A volume that an earlier driver has staged has a device of one file, which cannot get a store. It can be
// copied in use when it was staged once more.
func TestKernelStagedByEarlierDriver(t *testing.T) {
	b := newBed(t, ublktest.Once)
	b.start() // on tmpfs
	v := b.create("data", 16*mib, blockAccess(writers))
	path := filepath.Join(b.pool, "volumes", v.id+".img")
	image, err := os.OpenFile(path, os.O_RDWR, 0)
	b.ok("open", err)
	lease, err := b.client.Add(b.Context(), client.AddRequest{File: path, Config: client.Config{OnCrash: "reissue"}}, client.Files{File: image})
	b.ok("attach", err)
	b.ok("keep", lease.Keep(b.Context(), 0))
	lease.Close()
	b.ok("close", image.Close())
	b.put(v.use("a"), content(1, mib))
	_, err = v.trySnapshot("s")
	b.refused("snapshot", err, codes.FailedPrecondition, "stop its pods once")
	_, err = b.controller.CreateVolume(b.Context(), creation("clone", 0, v.access, fromVolume(v.id)))
	b.refused("clone", err, codes.FailedPrecondition, "stop its pods once")
	v.leave("a")
	b.has(v.use("a"), content(1, mib))
	snapshot := v.snapshot("s")
	b.put(v.file("a"), content(2, mib))
	restored := b.create("restored", 16*mib, v.access, fromSnapshot(snapshot))
	b.has(restored.use("a"), content(1, mib))
	for _, v := range []*volume{v, restored} {
		v.leave("a")
		v.remove()
	}
	b.deleteSnapshot(snapshot)
	b.isClean()
}
