package process

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

func TestCheckInherited(t *testing.T) {
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	passed, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD, 3) // without FD_CLOEXEC, as an inherited one
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(passed)
	for fd, want := range map[int]error{int(f.Fd()): unix.EBADF, passed: nil, 987: unix.EBADF} {
		if err := CheckInherited(fd); !errors.Is(err, want) {
			t.Errorf("descriptor %d: %v, want %v", fd, err, want)
		}
	}
}
