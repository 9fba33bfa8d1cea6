package ublk

import (
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ring"
)

// shortRing returns from each enter with one more completion, however many it should wait for.
type shortRing struct {
	entered, most uint32
}

func (r *shortRing) SubmitAndWait(uint32) error {
	r.entered++
	return nil
}

func (r *shortRing) SubmitAndWaitTimeout(n uint32, _ time.Duration) error { return r.SubmitAndWait(n) }

func (r *shortRing) CQReady() uint32 { return min(r.entered, r.most) }

// Completions are read when all of them are ready, even if the ring returns earlier.
func TestWaitReady(t *testing.T) {
	for _, timeout := range []time.Duration{0, time.Hour} {
		r := &shortRing{most: 2}
		if err := waitReady(r, 2, timeout); err != nil || r.CQReady() != 2 {
			t.Errorf("timeout %v: %d are there, error %v", timeout, r.CQReady(), err)
		}
	}
	r := &shortRing{most: 1}
	if err := waitReady(r, 2, time.Millisecond); !errors.Is(err, unix.ETIME) {
		t.Errorf("of one that never comes: error %v, want ETIME", err)
	}
}

// If the end of a command that was given up is unknown, its memory stays, because the kernel may write to it. All else is closed.
func TestAbandonWithoutEnd(t *testing.T) {
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(pipe[0]) }()
	u := &uringControl{fd: pipe[1]}
	var err error
	if u.arg, err = unix.Mmap(-1, 0, unix.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON); err != nil {
		t.Fatal(err)
	}
	arg := u.arg
	if u.r, err = ring.New(ring.Options{Entries: 4}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Dup3(pipe[1], u.r.FD(), unix.O_CLOEXEC); err != nil { // a wait on a pipe fails
		t.Fatal(err)
	}
	u.abandon()
	if n, err := unix.Read(pipe[0], make([]byte, 1)); n != 0 || err != nil { // the end
		t.Errorf("a descriptor stays open: %d, error %v", n, err)
	}
	if err := unix.Msync(arg, unix.MS_ASYNC); err != nil {
		t.Errorf("the memory is unmapped: %v", err)
	}
	_ = unix.Munmap(arg)
}
