package stack

import (
	"testing"

	"golang.org/x/sys/unix"
)

// A server locks its memory. The pages of arenas go all the same, and views
// of them stay valid.
func TestFreeLockedArenas(t *testing.T) {
	var a arenas
	mem, err := a.add(2 * 4096)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Mlock(mem); err != nil {
		t.Fatal(err)
	}
	mem[4096] = 1
	if err := a.free(); err != nil || mem[4096] != 0 {
		t.Errorf("the byte is %d, error %v", mem[4096], err)
	}
	if err := unix.Munmap(mem); err != nil {
		t.Fatal(err)
	}
}
