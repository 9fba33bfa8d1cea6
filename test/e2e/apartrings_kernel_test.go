package e2e

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
)

// A process that serves requests makes every ring when it has nothing left to give up. The kernel's workers of a ring
// have what its maker had.
func TestKernelRingsInSandbox(t *testing.T) {
	b := kernelBed(t)
	for _, kind := range []string{"standalone", "serve"} {
		t.Run(kind, func(t *testing.T) {
			b := b.in(t)
			watch := b.watchRings()
			var s client.Device
			if kind == "serve" {
				var m *many
				watch.on(func() { m = b.serve() })
				if !b.isApart(m.pid()) {
					return // with this driver the server serves all devices itself
				}
				s = b.add(b.image(1 << 20))
			} else {
				watch.on(func() { s = b.add("--standalone", b.image(1<<20)) })
			}
			b.roundTripSmall(s.Device)
			filters := seccompFilters(b.readFile(fmt.Sprintf("/proc/%d/status", s.PID))) + 1
			made := watch.ringsOf(b.apartOfDevice(s))
			if len(made) < 2 { // one for the check that rings can be made, and one for each queue
				t.Errorf("the process made %d rings", len(made))
			}
			for i, status := range made {
				if n := seccompFilters(status); n != filters || !strings.Contains(status, "\nCapInh:\t0000000000000000\n") {
					t.Errorf("ring %d is made with %d lists of system calls, want %d:\n%s", i, n, filters, status)
				}
			}
			b.del(s.Device)
		})
	}
}

// seccompFilters returns the number of lists of system calls in a /proc/PID/status, -1 if it is unknown.
func seccompFilters(status string) int {
	_, after, _ := strings.Cut(status, "\nSeccomp_filters:\t")
	value, _, _ := strings.Cut(after, "\n")
	n, err := strconv.Atoi(value)
	if err != nil {
		return -1
	}
	return n
}

// ringWatch notices each ring that processes make. The kernel asks it before the ring is made, and the maker waits
// meanwhile (SECCOMP_RET_USER_NOTIF in seccomp(2)).
type ringWatch struct {
	b     *bed
	calls chan func() // for the thread whose children are watched

	mu   sync.Mutex
	made map[int][]string // /proc/TID/status of the makers, by process
	err  error
}

// watchRings watches the processes that are started by [ringWatch.on], and their children, until the test has ended.
func (b *bed) watchRings() *ringWatch {
	b.Helper()
	w := &ringWatch{b: b, calls: make(chan func()), made: map[int][]string{}}
	listener := make(chan int)
	go func() { // ends when the test closes calls, and the watched thread with it
		runtime.LockOSThread()
		fd, err := askAboutRings()
		w.err = err
		listener <- fd
		for call := range w.calls {
			call()
		}
	}()
	fd := <-listener
	if w.err != nil {
		b.Fatal(w.err)
	}
	over, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		b.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { // ends when over is written to
		defer close(ended)
		w.answer(fd, over)
	}()
	b.Cleanup(func() {
		close(w.calls)
		if _, err := unix.Write(over, binary.NativeEndian.AppendUint64(nil, 1)); err != nil {
			b.Error(err)
		}
		<-ended
		if err := errors.Join(w.err, unix.Close(fd), unix.Close(over)); err != nil {
			b.Error(err)
		}
	})
	return w
}

// on calls a function on the thread whose children are watched.
func (w *ringWatch) on(f func()) {
	called := make(chan struct{})
	w.calls <- func() {
		defer close(called) // also if the test ends in f
		f()
	}
	<-called
	if w.b.Failed() {
		w.b.FailNow() // f may not have come to its end
	}
}

// ringsOf returns the /proc/TID/status of the threads of a process that made rings.
func (w *ringWatch) ringsOf(pid int) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.made[pid]
}

// askAboutRings makes the kernel ask before the calling thread and its children make a ring, and returns the descriptor
// that it asks on.
func askAboutRings() (int, error) {
	program := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // the number of the call
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_IO_URING_SETUP, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_USER_NOTIF},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	prog := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	const mode, flags = unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER
	fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, mode, flags, uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		return -1, fmt.Errorf("ask about rings: %w", errno)
	}
	return int(fd), nil
}

// question is struct seccomp_notif of linux/seccomp.h.
type question struct {
	id    uint64
	tid   uint32
	flags uint32
	call  struct {
		number int32
		arch   uint32
		at     uint64
		args   [6]uint64
	}
}

// reply is struct seccomp_notif_resp of linux/seccomp.h.
type reply struct {
	id    uint64
	value int64
	err   int32
	flags uint32
}

// answer records who makes a ring, and lets it, until something is written to over.
func (w *ringWatch) answer(listener, over int) {
	fds := []unix.PollFd{{Fd: int32(over), Events: unix.POLLIN}, {Fd: int32(listener), Events: unix.POLLIN}}
	for {
		_, err := unix.Poll(fds, -1)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err == nil && fds[0].Revents != 0:
			return
		case err == nil && fds[1].Revents&unix.POLLIN != 0:
			err = w.allow(listener)
		case err == nil: // all watched processes and the thread have ended
			fds = fds[:1]
		}
		if err != nil {
			w.err = err
			return
		}
	}
}

// allow answers one question, and records it if the maker still waits for the answer.
func (w *ringWatch) allow(listener int) error {
	var q question
	if err := ioctl(listener, unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(&q)); err != nil {
		if errors.Is(err, unix.ENOENT) { // the maker was killed
			return nil
		}
		return fmt.Errorf("receive a question: %w", err)
	}
	status, unknown := os.ReadFile(fmt.Sprintf("/proc/%d/status", q.tid))
	w.mu.Lock()
	defer w.mu.Unlock()
	err := ioctl(listener, unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&reply{id: q.id, flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE}))
	switch {
	case errors.Is(err, unix.ENOENT): // the maker was killed, or got a signal after which the kernel asks again
		return nil
	case err != nil:
		return fmt.Errorf("answer a question: %w", err)
	case q.call.args[1] == 0: // a call without parameters asks whether rings are allowed, and makes none
		return nil
	case unknown != nil:
		return unknown
	}
	pid := threadGroup(string(status))
	w.made[pid] = append(w.made[pid], string(status))
	return nil
}

func ioctl(fd int, request uint, arg unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(request), uintptr(arg)); errno != 0 {
		return errno
	}
	return nil
}

// threadGroup returns the process of a /proc/TID/status.
func threadGroup(status string) int {
	_, after, _ := strings.Cut(status, "\nTgid:\t")
	value, _, _ := strings.Cut(after, "\n")
	pid, err := strconv.Atoi(value)
	if err != nil {
		return 0
	}
	return pid
}
