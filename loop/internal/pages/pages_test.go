package pages

import (
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// All pages exist when Map returns, also if the process locks its pages only when they are used, as
// servers do.
func TestMap(t *testing.T) {
	if !ublktest.Alone(t) {
		return
	}
	// Without CAP_IPC_LOCK the limit can be too low. Then nothing is locked, and Map has the same effect.
	if err := unix.Mlockall(unix.MCL_FUTURE | unix.MCL_ONFAULT); err != nil {
		t.Logf("lock memory: %v", err)
	}
	page := unix.Getpagesize()
	mem, err := Map(10*page + 1)
	if err != nil {
		t.Fatal(err)
	}
	resident := make([]byte, 11)
	_, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&mem[0])), uintptr(len(mem)), uintptr(unsafe.Pointer(&resident[0])))
	if errno != 0 {
		t.Fatal(errno)
	}
	for i, is := range resident {
		if is&1 == 0 {
			t.Errorf("page %d does not exist", i)
		}
	}
}
