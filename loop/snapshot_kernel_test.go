package loop

import (
	"fmt"
	"math/rand/v2"
	"os"
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
	ctl := ublktest.Kernel(t, ublktest.EveryKernel)
	run(t, "modprobe", "dm_snapshot")
	for _, format := range []string{"P", "PO"} {
		for _, chunk := range []int{8, 32, 128, 2048} {
			for _, zeroCopy := range []Switch{SwitchAuto, SwitchOff} {
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
