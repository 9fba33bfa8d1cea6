package loop

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
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
	for _, format := range []string{"P", "PO"} {
		for row, chunk := range []int{8, 32, 128, 2048} {
			for _, zeroCopy := range ublktest.Sample(t, row, SwitchAuto, SwitchOff) {
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
