package loop

import (
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/transfer/verity"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// signedBase is the tree of an image of 4 MiB on a disk of 16 MiB.
var signedBase = verity.Params{Algorithm: "sha256", DataBlockSize: 4096, HashBlockSize: 4096, DataBlocks: 1024, Salt: []byte("salt")}

// keyText is a key in the text of a table.
func keyText(digit string) string { return strings.Repeat(digit, 64) + strings.Repeat("0", 64) }

// overSignedBase returns stacks with a snapshot over verity. image is the table
// of verity.
func overSignedBase(image, store string) map[string]string {
	snapshot := image + ";snap,,,rw,0 8192 snapshot /dev/mapper/base " + store + " P 32"
	return map[string]string{
		"snapshot over verity": snapshot,
		"crypt over snapshot over verity": snapshot + ";top,,,rw,0 8192 crypt aes-xts-plain64 " + keyText("5") +
			" 0 /dev/mapper/snap 0",
	}
}

// What is written through a snapshot of verity is what the kernel's stack of devices reads, and
// the reverse, also with encryption above the snapshot.
func TestKernelSnapshotOfVerityBothWays(t *testing.T) {
	ctl := ublktest.Kernel(t, ublktest.OldestKernel)
	run(t, "modprobe", "dm_snapshot")
	run(t, "modprobe", "dm_crypt")
	m := newVerityImage(t, nullDisk(t, 16, sectorDisk), signedBase)
	image := "base,,,ro," + m.table("")
	for name := range overSignedBase("", "") {
		t.Run(name, func(t *testing.T) {
			bothWays(t, ctl, overSignedBase(image, nullDisk(t, 16, sectorDisk))[name], Config{})
		})
	}
}

// Below a snapshot, a wrong block of the base gives the same errors as in the kernel's stack, and
// a first write next to it fails and copies nothing. A block that was written as a whole chunk is
// right again.
func TestKernelSnapshotOfWrongBlocks(t *testing.T) {
	ctl := ublktest.Kernel(t, ublktest.OldestKernel)
	run(t, "modprobe", "dm_snapshot")
	m := newVerityImage(t, nullDisk(t, 16, sectorDisk), signedBase)
	image := "base,,,ro," + m.table("")
	m.flip(t, 40*4096+9) // in chunk 10
	m.flip(t, 900*4096)
	var want []read
	t.Run("kernel", func(t *testing.T) {
		want = readsOf(t, mappedDisk(t, overSignedBase(image, nullDisk(t, 16, sectorDisk))["snapshot over verity"]), 4096)
	})
	dev := attachTable(t, ctl, overSignedBase(image, nullDisk(t, 16, sectorDisk))["snapshot over verity"], Config{})
	compare := func() {
		t.Helper()
		for i, got := range readsOf(t, dev.Path(), 4096) {
			if !errors.Is(got.err, want[i].err) || (got.err == nil) != (want[i].err == nil) || got.err == nil && got.bytes != want[i].bytes {
				t.Errorf("block %d: %v, the kernel's %v, or other bytes", i, got.err, want[i].err)
			}
		}
	}
	for i, r := range want {
		if wrong := i == 40 || i == 900; wrong != errors.Is(r.err, unix.EIO) {
			t.Fatalf("the kernel's block %d: %v", i, r.err)
		}
	}
	compare()
	f := openFile(t, dev.Path(), os.O_RDWR|unix.O_DIRECT)
	mem := alignedMemory(t, 16<<10)
	for i := range mem {
		mem[i] = 0xab
	}
	if _, err := f.WriteAt(mem[:4096], 41*4096); !errors.Is(err, unix.EIO) {
		t.Errorf("first write to the chunk of a wrong block: %v", err)
	}
	compare()
	if _, err := f.WriteAt(mem[:4096], 44*4096); err != nil {
		t.Errorf("first write to another chunk: %v", err)
	}
	want[44] = read{bytes: string(mem[:4096])}
	compare()
	if _, err := f.WriteAt(mem, 40*4096); err != nil {
		t.Errorf("write of the whole chunk: %v", err)
	}
	for i := range 4 {
		want[40+i] = read{bytes: string(mem[:4096])}
	}
	compare()
	if n := dev.stack.Corruptions(); n == 0 {
		t.Error("no wrong block is counted")
	}
}
