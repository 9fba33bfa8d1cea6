package ring

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// faulty is the number of completions that a test waits for where the kernel is
// to fail.
const faulty = 77

// failEnters makes the kernel fail every io_uring_enter of this thread that waits
// for faulty completions. It does so until the thread ends, with the test.
func failEnters(t *testing.T, errno unix.Errno) {
	t.Helper()
	const minComplete = 2
	answerEnters(t, errno, minComplete, faulty)
}

// answerEnters makes the kernel answer every io_uring_enter of this thread that
// has a value as an argument, and do nothing: with an errno, or with 0.
func answerEnters(t *testing.T, errno unix.Errno, arg, value uint32) {
	t.Helper()
	runtime.LockOSThread()
	const (
		number = 0  // offsetof(struct seccomp_data, nr)
		args   = 16 // offsetof(struct seccomp_data, args), of 8 bytes each
		load   = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		equal  = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		answer = unix.BPF_RET | unix.BPF_K
	)
	filter := []unix.SockFilter{
		{Code: load, K: number},
		{Code: equal, K: unix.SYS_IO_URING_ENTER, Jf: 3},
		{Code: load, K: args + 8*arg}, // its lower half
		{Code: equal, K: value, Jf: 1},
		{Code: answer, K: unix.SECCOMP_RET_ERRNO | uint32(errno)},
		{Code: answer, K: unix.SECCOMP_RET_ALLOW},
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	err := unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&program)), 0, 0)
	if errors.Is(err, unix.EINVAL) {
		t.Skip("this kernel has no filters of system calls")
	}
	if err != nil {
		t.Fatal(err)
	}
}

// enters calls a function and ends the test process where that goes on for ever.
func enters(t *testing.T, what string, f func() error) error {
	t.Helper()
	watchdog := time.AfterFunc(20*time.Second, func() { panic(what + " does not end") })
	defer watchdog.Stop()
	return f()
}

// Where the kernel takes no entries for now, what is there is read first: with
// nothing there, it is asked again.
func TestEnterThatIsToBeRepeated(t *testing.T) {
	for _, errno := range []unix.Errno{unix.EAGAIN, unix.EBUSY} {
		t.Run(fmt.Sprint(errno), func(t *testing.T) {
			r := newRing(t, Options{Entries: 2, SingleIssuer: true})
			failEnters(t, errno)
			r.GetSQE().PrepNop()
			start := time.Now()
			err := enters(t, "an enter with a timeout", func() error {
				return r.SubmitAndWaitTimeout(faulty, 20*time.Millisecond)
			})
			if !errors.Is(err, unix.ETIME) || time.Since(start) < 20*time.Millisecond {
				t.Errorf("nothing to read: error %v after %v, want ETIME after 20 ms", err, time.Since(start))
			}
			if n := r.SQSpace(); n != 1 {
				t.Errorf("room for %d entries beside one that the kernel has not taken, want 1", n)
			}
			if r.GetSQE(); r.GetSQE() != nil {
				t.Error("an entry was handed out that the kernel has not taken")
			}
			if err := r.SubmitAndWait(2); err != nil || r.CQReady() != 2 {
				t.Fatalf("the same entries later: error %v, %d completions", err, r.CQReady())
			}
			r.GetSQE().PrepNop()
			if err := enters(t, "an enter", func() error { return r.SubmitAndWait(faulty) }); err != nil || r.CQReady() != 2 {
				t.Errorf("two to read: error %v, %d completions", err, r.CQReady())
			}
		})
	}
}

func TestEnterThatFails(t *testing.T) {
	for errno, want := range map[unix.Errno]error{
		unix.EBADR: ErrOverflow, unix.ENXIO: unix.ENXIO, unix.EEXIST: unix.EEXIST, unix.EFAULT: unix.EFAULT, unix.ENOMEM: unix.ENOMEM,
	} {
		t.Run(fmt.Sprint(errno), func(t *testing.T) {
			r := newRing(t, Options{Entries: 2, SingleIssuer: true})
			failEnters(t, errno)
			r.GetSQE().PrepNop()
			err := enters(t, "an enter", func() error { return r.SubmitAndWait(faulty) })
			if !errors.Is(err, want) {
				t.Errorf("error %v, want %v", err, want)
			}
		})
	}
}

// What the kernel has not taken is handed over again before an enter returns.
func TestEnterThatTakesNothing(t *testing.T) {
	r := newRing(t, Options{Entries: 2, SingleIssuer: true})
	const toSubmit = 1
	answerEnters(t, 0, toSubmit, 2)
	r.GetSQE().PrepNop()
	r.GetSQE().PrepNop()
	err := enters(t, "an enter with a timeout", func() error { return r.SubmitAndWaitTimeout(0, 20*time.Millisecond) })
	if !errors.Is(err, unix.ETIME) || r.SQSpace() != 0 {
		t.Errorf("error %v, room for %d entries; want ETIME and none", err, r.SQSpace())
	}
}

// A signal does not end a wait. Go sends its threads signals all the time.
func TestEnterInterrupted(t *testing.T) {
	r := newRing(t, Options{SingleIssuer: true})
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	waiter, sent := unix.Gettid(), make(chan int)
	go func() {
		n := 0
		for deadline := time.Now().Add(20 * time.Second); n < 100 && time.Now().Before(deadline); {
			if isWaiting(waiter) && unix.Tgkill(unix.Getpid(), waiter, unix.SIGURG) == nil {
				n++
			}
		}
		_, _ = unix.Write(fd, []byte{1, 1, 1, 1, 1, 1, 1, 1})
		sent <- n
	}()
	r.GetSQE().PrepPollAdd(FD(fd), unix.POLLIN)
	err = r.SubmitAndWait(1)
	if n := <-sent; err != nil || n != 100 {
		t.Errorf("error %v with %d signals", err, n)
	}
}

// isWaiting reports whether a thread of this process is in io_uring_enter.
func isWaiting(tid int) bool {
	data, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/syscall", tid))
	number, _, _ := strings.Cut(string(data), " ")
	return err == nil && number == fmt.Sprint(unix.SYS_IO_URING_ENTER)
}
