package flock

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// opened returns a file, and opens it once more.
func opened(t *testing.T) (first, second *os.File) {
	t.Helper()
	fd, err := unix.MemfdCreate("lock", unix.MFD_CLOEXEC) // on a file system that has the same number in /proc/locks
	if err != nil {
		t.Fatal(err)
	}
	first = os.NewFile(uintptr(fd), "lock")
	second, err = os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", fd), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = first.Close(), second.Close() })
	return first, second
}

// A process that keeps a lock fails the others in time, and the error names it.
func TestExclusiveGivesUp(t *testing.T) {
	first, second := opened(t)
	if err := Exclusive(first, time.Minute); err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf(": process %d has it for 10ms: ", os.Getpid())
	if err := Exclusive(second, 10*time.Millisecond); !errors.Is(err, unix.ETIMEDOUT) || !strings.Contains(err.Error(), want) {
		t.Errorf("beside another lock: error %v, want %q", err, want)
	}
}

// A lock that is released in time is taken.
func TestExclusiveWaits(t *testing.T) {
	first, second := opened(t)
	if err := Exclusive(first, time.Minute); err != nil {
		t.Fatal(err)
	}
	locked := make(chan error, 1)
	go func() { locked <- Exclusive(second, time.Minute) }() // received below
	select {
	case err := <-locked:
		t.Fatalf("it does not wait: error %v", err)
	case <-time.After(20 * time.Millisecond):
	}
	if err := unix.Flock(int(first.Fd()), unix.LOCK_UN); err != nil {
		t.Fatal(err)
	}
	if err := <-locked; err != nil {
		t.Error(err)
	}
	if err := unix.Flock(int(first.Fd()), unix.LOCK_EX|unix.LOCK_NB); !errors.Is(err, unix.EWOULDBLOCK) {
		t.Errorf("the lock is free: %v", err)
	}
}

func TestExclusiveOfClosedFile(t *testing.T) {
	first, _ := opened(t)
	_ = first.Close()
	if err := Exclusive(first, time.Minute); !errors.Is(err, unix.EBADF) {
		t.Errorf("error %v", err)
	}
}

// Attempts at a lock that stays locked do not add up threads and descriptors. The lock can be taken when it is free.
func TestExclusiveAgainAndAgain(t *testing.T) {
	first, second := opened(t)
	if err := Exclusive(first, time.Minute); err != nil {
		t.Fatal(err)
	}
	before := descriptors(t)
	for range 5 {
		if err := Exclusive(second, 10*time.Millisecond); !errors.Is(err, unix.ETIMEDOUT) || !strings.Contains(err.Error(), " has it for 10ms: ") {
			t.Errorf("beside another lock: error %v", err)
		}
	}
	if more := descriptors(t) - before; more > 1 {
		t.Errorf("%d more descriptors", more)
	}
	if err := unix.Flock(int(first.Fd()), unix.LOCK_UN); err != nil {
		t.Fatal(err)
	}
	if err := Exclusive(second, time.Minute); err != nil {
		t.Error(err)
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}
