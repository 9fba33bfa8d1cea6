package loop

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// filledDisk makes a disk of random bytes.
func filledDisk(t *testing.T, mib int) string {
	t.Helper()
	disk := nullDisk(t, mib, sectorDisk)
	f := openFile(t, disk, os.O_RDWR|unix.O_DIRECT)
	mem := alignedMemory(t, 1<<20)
	for i := range mib {
		if _, err := f.WriteAt(random(mem), int64(i)<<20); err != nil {
			t.Fatal(err)
		}
	}
	return disk
}

// What is written through a snapshot is what the kernel's snapshot of the same origin and store
// reads, and the reverse, for each format that has a store on disk.
func TestKernelSnapshotBothWays(t *testing.T) {
	ctl := ublktest.Kernel(t, ublktest.OldestKernel)
	run(t, "modprobe", "dm_snapshot")
	for row, chunk := range []int{8, 32, 128, 2048} {
		for _, format := range ublktest.Sample(t, row, "P", "PO") {
			for _, zeroCopy := range ublktest.Sample(t, row/2, SwitchAuto, SwitchOff) {
				t.Run(fmt.Sprintf("%s %d, zero copy %s", format, chunk, zeroCopy), func(t *testing.T) {
					origin, store := filledDisk(t, 8), nullDisk(t, 16, sectorDisk)
					sectors := 16384 - 8*rand.IntN(3)
					text := fmt.Sprintf("0 %d snapshot %s %s %s %d", sectors, origin, store, format, chunk)
					bothWays(t, ctl, text, Config{ZeroCopy: zeroCopy})
				})
			}
		}
	}
}

// The store can be on a disk with larger blocks than those of the origin, which ends within one of them.
func TestKernelSnapshotStoreOfLargerBlocks(t *testing.T) {
	ctl := ublktest.Kernel(t, ublktest.OldestKernel)
	for _, zeroCopy := range []Switch{SwitchAuto, SwitchOff} {
		t.Run(fmt.Sprintf("zero copy %s", zeroCopy), func(t *testing.T) {
			const size, chunk = 62 << 12, 16 << 10
			image := random(make([]byte, size+3*512))
			origin := filepath.Join(t.TempDir(), "origin")
			if err := os.WriteFile(origin, image, 0o600); err != nil {
				t.Fatal(err)
			}
			text := fmt.Sprintf("0 %d snapshot %s %s P %d", size/512, origin, disk4K(t), chunk/512)
			dev := attachTable(t, ctl, text, Config{ZeroCopy: zeroCopy})
			f := openFile(t, dev.Path(), os.O_RDWR|unix.O_DIRECT)
			mem := alignedMemory(t, 4096)
			for _, at := range []int64{size - 4096, 0, size - 8192} { // the last chunk has these two blocks
				if _, err := f.WriteAt(random(mem), at); err != nil {
					t.Fatal(err)
				}
				copy(image[at:], mem)
			}
			if got := readDisk(t, f); !bytes.Equal(got, image[:size]) {
				t.Error(firstDifference(got, image[:size]))
			}
		})
	}
}

// With equal writes, one after another, the store is equal to that of the kernel, byte for byte,
// and so are the numbers of dmsetup status.
func TestKernelSnapshotEqualStores(t *testing.T) {
	ctl := ublktest.Kernel(t, ublktest.OldestKernel)
	run(t, "modprobe", "dm_snapshot")
	for row, chunk := range []int{8, 32, 128} {
		for _, zeroCopy := range ublktest.Sample(t, row, SwitchAuto, SwitchOff) {
			t.Run(fmt.Sprintf("chunk %d, zero copy %s", chunk, zeroCopy), func(t *testing.T) {
				origin := filledDisk(t, 8)
				stores := []string{nullDisk(t, 16, sectorDisk), nullDisk(t, 16, sectorDisk)}
				text := func(i int) string { return fmt.Sprintf("0 16384 snapshot %s %s P %d", origin, stores[i], chunk) }
				var contents [2][]byte
				var usages [2]string
				t.Run("kernel", func(t *testing.T) {
					writeInOrder(t, mappedDisk(t, text(0)), chunk)
					fields := strings.Fields(run(t, "dmsetup", "status", mappedName))
					usages[0] = strings.Join(fields[3:], " ")
				})
				t.Run("ours", func(t *testing.T) {
					dev := attachTable(t, ctl, text(1), Config{ZeroCopy: zeroCopy, OnCrash: CrashReissue})
					writeInOrder(t, dev.Path(), chunk)
					usages[1] = dev.stack.Usages()[0].String()
				})
				for i, store := range stores {
					contents[i] = readDisk(t, openFile(t, store, os.O_RDONLY|unix.O_DIRECT))
				}
				if !bytes.Equal(contents[0], contents[1]) {
					t.Error(firstDifference(contents[1], contents[0]))
				}
				if usages[0] != usages[1] {
					t.Errorf("status %q, the kernel says %q", usages[1], usages[0])
				}
			})
		}
	}
}

// writeInOrder writes the same at each call, each write after the one before it.
func writeInOrder(t *testing.T, path string, chunk int) {
	t.Helper()
	f := openFile(t, path, os.O_RDWR|unix.O_DIRECT)
	mem := alignedMemory(t, 256<<10)
	source := rand.New(rand.NewPCG(7, uint64(chunk)))
	for i := range 600 {
		at := source.IntN(16000)
		n := 1 + source.IntN(1<<source.IntN(9))
		for j := range n * 512 {
			mem[j] = byte(i ^ j)
		}
		if _, err := f.WriteAt(mem[:n*512], int64(at)*512); err != nil {
			t.Fatal(err)
		}
	}
}
