package sandbox

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The offsets of struct seccomp_data (linux/seccomp.h).
const (
	dataNumber   = 0
	dataArch     = 4
	dataArgument = 16 // of argument 0, its lower half on a little-endian machine
)

// x32 marks calls of the x32 ABI on amd64, which have other numbers.
const x32 = 0x40000000

// limitCalls limits all threads to the system calls of the list (seccomp(2)). Refused calls are in the kernel's log.
func limitCalls(calls []uintptr) error {
	thread, err := enforce(filter(calls), unix.SECCOMP_FILTER_FLAG_TSYNC|unix.SECCOMP_FILTER_FLAG_LOG)
	if err == nil && thread != 0 { // it has another list, and no thread has this one
		err = fmt.Errorf("limit system calls of thread %d: %w", thread, unix.ESRCH)
	}
	return err
}

// asks are the flags of a program with which calls of all threads can wait for an answer. A signal does not end that wait after
// the call was received (Linux 5.19), since the caller would call again, and get another answer.
const asks = unix.SECCOMP_FILTER_FLAG_NEW_LISTENER | unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV |
	unix.SECCOMP_FILTER_FLAG_TSYNC | unix.SECCOMP_FILTER_FLAG_TSYNC_ESRCH

// askForRings makes calls of io_uring_setup wait for an answer through the descriptor that it returns (seccomp_unotify(2)). The
// error wraps EBUSY if another such descriptor is for this process already.
func askForRings() (listener int, err error) {
	fd, err := enforce([]unix.SockFilter{
		load(dataNumber), equal(unix.SYS_IO_URING_SETUP, 0, 1), answer(unix.SECCOMP_RET_USER_NOTIF), answer(unix.SECCOMP_RET_ALLOW),
	}, asks)
	return int(fd), err
}

// enforce adds a program that checks each call. The result depends on the flags.
func enforce(program []unix.SockFilter, flags uintptr) (uintptr, error) {
	prog := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	result, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		return 0, fmt.Errorf("limit system calls: %w", errno)
	}
	return result, nil
}

// refuse is the answer to a call that is not on the list.
const refuse = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)

// filter returns the program that checks each call.
func filter(calls []uintptr) []unix.SockFilter {
	program := []unix.SockFilter{
		load(dataArch), equal(auditArch, 1, 0), answer(unix.SECCOMP_RET_KILL_PROCESS),
		load(dataNumber),
		{Code: unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K, Jt: 0, Jf: 1, K: x32},
		answer(refuse),
		// clone makes threads only. The arguments of clone3 are out of the filter's reach, and Go does
		// not use it.
		equal(uint32(unix.SYS_CLONE), 0, 4), load(dataArgument),
		{Code: unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, Jt: 0, Jf: 1, K: unix.CLONE_THREAD},
		answer(unix.SECCOMP_RET_ALLOW), answer(refuse),
		equal(uint32(unix.SYS_CLONE3), 0, 1), answer(unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)),
		// Go names its memory. Other operations of prctl are refused.
		equal(uint32(unix.SYS_PRCTL), 0, 4), load(dataArgument), equal(unix.PR_SET_VMA, 0, 1),
		answer(unix.SECCOMP_RET_ALLOW), answer(refuse),
		// tgkill preempts threads of this process only.
		equal(uint32(unix.SYS_TGKILL), 0, 4), load(dataArgument), equal(uint32(unix.Getpid()), 0, 1),
		answer(unix.SECCOMP_RET_ALLOW), answer(refuse),
	}
	for _, call := range calls {
		program = append(program, equal(uint32(call), 0, 1), answer(unix.SECCOMP_RET_ALLOW))
	}
	return append(program, answer(refuse))
}

func answer(k uint32) unix.SockFilter { return statement(unix.BPF_RET|unix.BPF_K, k) }

func load(at uint32) unix.SockFilter { return statement(unix.BPF_LD|unix.BPF_W|unix.BPF_ABS, at) }

func equal(k uint32, yes, no uint8) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: yes, Jf: no, K: k}
}

func statement(code uint16, k uint32) unix.SockFilter { return unix.SockFilter{Code: code, K: k} }
