// Package pages maps memory outside of the Go heap, for what must not wait for a page later.
package pages

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Zeroes returns n bytes that are zero and only read. All of their pages are the kernel's page of
// zeroes, so they take no memory.
func Zeroes(n int) ([]byte, error) {
	mem, err := unix.Mmap(-1, 0, n, unix.PROT_READ, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return nil, fmt.Errorf("map %d bytes of zeroes: %w", n, err)
	}
	if err := unix.Madvise(mem, unix.MADV_POPULATE_READ); err != nil {
		_ = unix.Munmap(mem)
		return nil, fmt.Errorf("get the page of zeroes: %w", err)
	}
	return mem, nil
}

// Map returns n bytes, all of whose pages exist. MAP_POPULATE does not do that in a server,
// because mlockall(MCL_ONFAULT) turns it off (populate_vma_page_range in mm/gup.c).
func Map(n int) ([]byte, error) {
	mem, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return nil, fmt.Errorf("map %d bytes: %w", n, err)
	}
	if err := unix.Madvise(mem, unix.MADV_POPULATE_WRITE); err != nil {
		_ = unix.Munmap(mem)
		return nil, fmt.Errorf("get the pages of %d bytes: %w", n, err)
	}
	return mem, nil
}
