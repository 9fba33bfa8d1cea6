package ublk_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// startRAMDisk serves a RAM disk for a test.
func startRAMDisk(t testing.TB, ctl *ublk.Control, opts ublk.Options, disk ramDisk) *ublk.Device {
	t.Helper()
	opts.Mode = ublk.BufferCopy
	dev, err := ctl.Add(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := dev.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	if err := dev.SetParams(ublk.Params{Size: uint64(len(disk))}); err != nil {
		t.Fatal(err)
	}
	if err := dev.Start(disk); err != nil {
		t.Fatal(err)
	}
	return dev
}

func openDirect(t testing.TB, path string) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_DIRECT, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func TestKernelRAMDisk(t *testing.T) {
	ctl := ublktest.Kernel(t, ublktest.EveryKernel)
	disk := make(ramDisk, 8<<20)
	dev := startRAMDisk(t, ctl, ublk.Options{}, disk)
	f := openDirect(t, dev.BlockPath())
	data := alignedBytes(t, 64<<10)
	for i := range data {
		data[i] = byte(rand.Uint32())
	}
	if _, err := f.WriteAt(data, 1<<20); err != nil {
		t.Fatal(err)
	}
	got := alignedBytes(t, 64<<10)
	if _, err := f.ReadAt(got, 1<<20); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, data) {
		t.Fatal("other bytes were read than written")
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	// Go's memory model ignores that the kernel orders these accesses.
	if err := dev.Close(); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(disk[1<<20:1<<20+64<<10], data) {
		t.Fatal("the disk holds other bytes than were written")
	}
}

func alignedBytes(t testing.TB, n int) []byte {
	t.Helper()
	mem, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Munmap(mem) })
	return mem
}

func TestKernelAddDelMany(t *testing.T) {
	ctl := ublktest.Kernel(t)
	for i := range 20 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			startRAMDisk(t, ctl, ublk.Options{}, make(ramDisk, 1<<20))
		})
	}
}
