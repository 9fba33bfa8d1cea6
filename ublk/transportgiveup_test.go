package ublk

import (
	"errors"
	"os"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ring"
	"github.com/ublk-loop/ublk-loop/ublk/uapi"
)

// controlOn returns a control whose commands go to a file in place of /dev/ublk-control.
// /dev/null answers each command with 0, at once.
func controlOn(t *testing.T, path string) *uringControl {
	t.Helper()
	runtime.LockOSThread() // the thread ends with the test's goroutine
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	u := &uringControl{fd: fd}
	t.Cleanup(u.close)
	if u.arg, err = unix.Mmap(-1, 0, unix.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON); err != nil {
		t.Fatal(err)
	}
	u.r, err = ring.New(ring.Options{Entries: 4, SQE128: true, SingleIssuer: true})
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
		t.Skipf("no io_uring here: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// holdBack makes the next command wait for an entry that ends when the returned descriptor,
// an eventfd, is written to.
func holdBack(t *testing.T, u *uringControl, userData uint64) int {
	t.Helper()
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	sqe := u.r.GetSQE()
	sqe.PrepPollAdd(ring.FD(fd), unix.POLLIN)
	sqe.UserData = userData
	sqe.Flags = ring.IOSQE_IO_LINK | ring.IOSQE_CQE_SKIP_SUCCESS
	return fd
}

func TestControlCommandEnds(t *testing.T) {
	u := controlOn(t, "/dev/null")
	for _, timeout := range []time.Duration{0, time.Minute} {
		if err := u.do(Command{Op: uapi.UBLK_U_CMD_GET_FEATURES, Buf: make([]byte, 8), Timeout: timeout}); err != nil {
			t.Errorf("timeout %v: error %v", timeout, err)
		}
	}
	if err := u.do(Command{Buf: make([]byte, unix.Getpagesize()+1)}); !errors.Is(err, unix.E2BIG) {
		t.Errorf("more than a page: error %v, want E2BIG", err)
	}
	file, err := os.Create(t.TempDir() + "/file") // a file without commands
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = file.Close() })
	if err := controlOn(t, file.Name()).do(Command{Op: uapi.UBLK_U_CMD_DEL_DEV}); !errors.Is(err, unix.EOPNOTSUPP) {
		t.Errorf("a command that fails: error %v, want EOPNOTSUPP", err)
	}
}

// A command that is interrupted after its time fails.
func TestControlCommandInterrupted(t *testing.T) {
	u := controlOn(t, "/dev/null")
	holdBack(t, u, dataCommand) // the command ends with this entry
	err := u.do(Command{Op: uapi.UBLK_U_CMD_DEL_DEV, Timeout: time.Millisecond})
	if !errors.Is(err, unix.ECANCELED) {
		t.Errorf("error %v, want ECANCELED", err)
	}
}

// A command that cannot be interrupted fails too.
func TestControlCommandGivenUp(t *testing.T) {
	t.Parallel() // it takes cancelTimeout
	u := controlOn(t, "/dev/null")
	holdBack(t, u, ^uint64(0)) // which is not canceled
	err := u.do(Command{Op: uapi.UBLK_U_CMD_DEL_DEV, Timeout: time.Millisecond})
	if !errors.Is(err, ErrControlHung) {
		t.Errorf("error %v, want ErrControlHung", err)
	}
}

// The transport of a command that was given up can be closed when the command has ended.
func TestTransportOutlastsItsCommand(t *testing.T) {
	t.Parallel() // it takes cancelTimeout
	tr := &uringTransport{calls: make(chan call), ended: make(chan struct{})}
	held := make(chan int, 1)
	go func() { // ends with the transport
		defer close(tr.ended)
		u := controlOn(t, "/dev/null")
		held <- holdBack(t, u, ^uint64(0))
		tr.serve(u)
	}()
	fd := <-held
	if err := tr.Do(Command{Op: uapi.UBLK_U_CMD_DEL_DEV, Timeout: time.Millisecond}); !errors.Is(err, ErrControlHung) {
		t.Errorf("error %v, want ErrControlHung", err)
	}
	closed := make(chan struct{})
	go func() { _ = tr.Close(); close(closed) }() // received below
	select {
	case <-closed:
		t.Error("the transport is closed although the kernel still has its command")
	case <-time.After(100 * time.Millisecond):
	}
	if _, err := unix.Write(fd, []byte{1, 1, 1, 1, 1, 1, 1, 1}); err != nil {
		t.Fatal(err)
	}
	select {
	case <-closed:
	case <-time.After(10 * time.Second):
		t.Error("the transport is not closed")
	}
}

// Close waits for the end of the thread, which closes the control device.
func TestTransportCloseWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := &uringTransport{calls: make(chan call), ended: make(chan struct{})}
		closed := make(chan error, 1)
		go func() { closed <- tr.Close() }() // ends with tr.ended
		synctest.Wait()
		if _, open := <-tr.calls; open || len(closed) > 0 {
			t.Errorf("open for commands: %v; closed before the thread's end: %v", open, len(closed) > 0)
		}
		close(tr.ended)
		if err := <-closed; err != nil {
			t.Error(err)
		}
	})
}

// A transport takes no command after its thread has given one up.
func TestTransportThatGaveUp(t *testing.T) {
	tr := &uringTransport{calls: make(chan call), ended: make(chan struct{})}
	close(tr.ended)
	if err := tr.Do(Command{Op: uapi.UBLK_U_CMD_ADD_DEV}); !errors.Is(err, ErrControlHung) {
		t.Errorf("error %v, want ErrControlHung", err)
	}
}
