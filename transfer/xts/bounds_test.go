//go:build linux

package xts

import (
	"os"
	"runtime/debug"
	"syscall"
	"testing"
)

// No byte beyond the buffer or the schedule is read or written: both begin or
// end at a page that faults.
func TestNothingBeyondIsTouched(t *testing.T) {
	forEachImplementation(t, func(t *testing.T, impl implementation) {
		defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
		schedule, buf := fencedPage(t), fencedPage(t)
		src := newSource(t)
		for size := 16; size <= min(4096, len(buf)); size += 16 {
			atEnd, err := newCipher(impl, schedule[len(schedule)-ScheduleSize:], src.bytes(64))
			if err != nil {
				t.Fatal(err)
			}
			atEnd.Encrypt(buf[len(buf)-size:], size, 0, 1)
			atEnd.Decrypt(buf[len(buf)-size:], size, 0, 1)
			atStart, err := newCipher(impl, schedule, src.bytes(32))
			if err != nil {
				t.Fatal(err)
			}
			atStart.Encrypt(buf[:size], size, 0, 1)
			atStart.Decrypt(buf[:size], size, 0, 1)
		}
	})
}

// fencedPage maps a page between two pages that fault.
func fencedPage(t *testing.T) []byte {
	t.Helper()
	page := os.Getpagesize()
	mem, err := syscall.Mmap(-1, 0, 3*page, syscall.PROT_NONE, syscall.MAP_PRIVATE|syscall.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Munmap(mem); err != nil {
			t.Error(err)
		}
	})
	middle := mem[page : 2*page : 2*page]
	if err := syscall.Mprotect(middle, syscall.PROT_READ|syscall.PROT_WRITE); err != nil {
		t.Fatal(err)
	}
	return middle
}
