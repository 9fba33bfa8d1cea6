package loop

import (
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// A short first write to a chunk is one read of the origin and one write of the store, in both
// buffer modes. A file system then allocates the blocks of the chunk once.
func TestKernelFirstWriteIsOneWrite(t *testing.T) {
	ctl := ublktest.Kernel(t, ublktest.EveryKernel)
	for _, zeroCopy := range []Switch{SwitchOn, SwitchOff} {
		t.Run("zero copy "+string(zeroCopy), func(t *testing.T) {
			if zeroCopy == SwitchOn {
				needMode(t, ctl, ublk.BufferRegister)
			}
			const chunk, n = 64 << 10, 16
			origin, store := filledDisk(t, 8), nullDisk(t, 16, map[string]string{"max_sectors": "1024"})
			for _, disk := range []string{origin, store} {
				noMerges(t, disk)
			}
			text := fmt.Sprintf("0 16384 snapshot %s %s P %d", origin, store, chunk>>9)
			dev := attachTable(t, ctl, text, Config{ZeroCopy: zeroCopy})
			f := openFile(t, dev.Path(), os.O_RDWR|unix.O_DIRECT)
			before := [2]ioCount{countIO(t, origin), countIO(t, store)}
			for i := range n {
				if _, err := f.WriteAt(random(alignedMemory(t, 4<<10)), int64(i*chunk+chunk/2)); err != nil {
					t.Fatal(err)
				}
			}
			want := [2]ioCount{{reads: n, readSectors: n * chunk >> 9}, {writes: n, writeSectors: n * chunk >> 9}}
			var got [2]ioCount
			// The kernel counts an operation after it has woken the waiting process.
			waitUntil(t, "the disks count their operations", func() bool {
				got = [2]ioCount{countIO(t, origin).minus(before[0]), countIO(t, store).minus(before[1])}
				return got[0].reads >= n && got[1].writes >= n
			})
			if got != want {
				t.Errorf("origin and store %+v, want %+v", got, want)
			}
		})
	}
}
