package loop

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// With check_at_most_once a block that was right is not checked again, as in the kernel. Without
// it, each read checks.
func TestKernelVerityChecksOnce(t *testing.T) {
	ctl := ublktest.Kernel(t)
	m := newVerityImage(t, nullDisk(t, 16, sectorDisk), verityTrees[0])
	for _, options := range []string{"1 check_at_most_once", ""} {
		for name, path := range map[string]func(*testing.T) string{
			"kernel": func(t *testing.T) string { return mappedDisk(t, m.table(options)) },
			"ours":   func(t *testing.T) string { return attachTable(t, ctl, m.table(options), Config{}).Path() },
		} {
			t.Run(name+" "+options, func(t *testing.T) {
				f := openFile(t, path(t), os.O_RDONLY|unix.O_DIRECT)
				mem := alignedMemory(t, 4096)
				read := func(block int64) error {
					_, err := unix.Pread(int(f.Fd()), mem, block*4096)
					return err
				}
				if err := read(5); err != nil {
					t.Fatal(err)
				}
				right := mem[100]
				m.flip(t, 5*4096+100)
				m.flip(t, 6*4096)
				switch err := read(5); {
				case options == "" && !errors.Is(err, unix.EIO):
					t.Errorf("a wrong block: %v", err)
				case options != "" && (err != nil || mem[100] == right):
					t.Errorf("a block that was right: %v, byte %x, first %x", err, mem[100], right)
				}
				if err := read(6); !errors.Is(err, unix.EIO) {
					t.Errorf("a wrong block that was not read before: %v", err)
				}
			})
		}
	}
}
