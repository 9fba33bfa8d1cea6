package loop

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// With equal writes, one after another, a snapshot with an encrypted store has the bytes of the
// kernel's stack of two devices, and so has its store.
func TestKernelEncryptedStore(t *testing.T) {
	ctl := ublktest.Kernel(t, ublktest.OldestKernel)
	run(t, "modprobe", "dm_snapshot")
	run(t, "modprobe", "dm_crypt")
	for _, chunk := range ublktest.Sample(t, 0, 8, 128) {
		t.Run(fmt.Sprint("chunk ", chunk), func(t *testing.T) {
			origin := filledDisk(t, 8)
			stores := []string{nullDisk(t, 16, sectorDisk), nullDisk(t, 16, sectorDisk)}
			text := func(i int) string {
				return fmt.Sprintf("secret,,,rw,0 32768 crypt aes-xts-plain64 %s 3 %s 0;top,,,rw,0 16384 snapshot %s /dev/mapper/secret N %d",
					keyText("7"), stores[i], origin, chunk)
			}
			var devices, contents [2][]byte
			use := func(t *testing.T, i int, path string) {
				writeInOrder(t, path, chunk)
				devices[i] = readDisk(t, openFile(t, path, os.O_RDONLY|unix.O_DIRECT))
			}
			t.Run("kernel", func(t *testing.T) { use(t, 0, mappedDisk(t, text(0))) })
			t.Run("ours", func(t *testing.T) { use(t, 1, attachTable(t, ctl, text(1), Config{}).Path()) })
			for i, store := range stores {
				contents[i] = readDisk(t, openFile(t, store, os.O_RDONLY|unix.O_DIRECT))
			}
			for what, got := range map[string][2][]byte{"device": devices, "store": contents} {
				if !bytes.Equal(got[0], got[1]) {
					t.Error(what, firstDifference(got[1], got[0]))
				}
			}
		})
	}
}

// First writes to an encrypted store, and reads and writes of it, allocate nothing.
func TestKernelEncryptedStoreAllocatesNothing(t *testing.T) {
	ctl := ublktest.Kernel(t, ublktest.Plain)
	text := fmt.Sprintf("secret,,,rw,0 32768 crypt aes-xts-plain64 %s 0 %s 0;top,,,rw,0 16384 snapshot %s /dev/mapper/secret N 8",
		keyText("7"), nullDisk(t, 16, sectorDisk), nullDisk(t, 8, sectorDisk))
	f := openFile(t, attachTable(t, ctl, text, Config{Queues: 1}).Path(), os.O_RDWR|unix.O_DIRECT)
	fd, mem := int(f.Fd()), alignedMemory(t, 4096)
	const rounds = 1000
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for i := range rounds {
		off := int64(i) * 4096
		_, first := unix.Pwrite(fd, mem[:512], off)
		_, whole := unix.Pwrite(fd, mem, off)
		_, read := unix.Pread(fd, mem, off)
		for _, err := range []error{first, whole, read} {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	runtime.ReadMemStats(&after)
	// Go's runtime allocates for itself now and then.
	if n := after.Mallocs - before.Mallocs; n > 3*rounds/100 {
		t.Errorf("%d allocations for %d requests", n, 3*rounds)
	}
}
