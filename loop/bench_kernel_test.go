package loop

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// This benchmark measures the cost of a request. It also shows that a request allocates
// nothing in the whole process: 0 allocs/op.
func BenchmarkKernelRead4K(b *testing.B) {
	ctl := ublktest.Kernel(b)
	for _, zeroCopy := range []Switch{SwitchAuto, SwitchOff} {
		b.Run("zero copy "+string(zeroCopy), func(b *testing.B) {
			dev := attach(b, ctl, nullDisk(b, 64, nil), Config{Queues: 1, ZeroCopy: zeroCopy})
			fd := int(openFile(b, dev.Path(), os.O_RDONLY|unix.O_DIRECT).Fd())
			mem := alignedMemory(b, 4096)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if _, err := unix.Pread(fd, mem, int64(i%4096)*4096); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
