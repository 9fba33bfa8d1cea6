package main

import (
	"bytes"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// The disk takes a write of its last page, and the page still reads as zeroes.
func TestKernelNull(t *testing.T) {
	ublktest.Kernel(t)
	page, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Munmap(page) }()
	ublktest.Program(t, main, nil, func(disk string) {
		f, err := os.OpenFile(disk, os.O_RDWR|unix.O_DIRECT, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		const last = 1<<40 - 4096
		// The program has a buffer for each of 64 requests. In the end writes have filled all.
		for range 256 {
			copy(page, bytes.Repeat([]byte{1}, len(page)))
			if _, err := f.WriteAt(page, last); err != nil {
				t.Fatal(err)
			}
		}
		for range 256 {
			if _, err := f.ReadAt(page, last); err != nil || !bytes.Equal(page, make([]byte, len(page))) {
				t.Fatalf("read %x…, error %v; want zeroes", page[:8], err)
			}
		}
	})
}
