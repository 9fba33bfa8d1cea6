package sandbox

import (
	"slices"

	"golang.org/x/sys/unix"
)

// This file has the lists of system calls that a process in the sandbox may make. All others fail with
// EPERM.

// ServingCalls are for a process that serves requests of devices.
var ServingCalls = slices.Concat(commonCalls, machineCalls, []uintptr{
	unix.SYS_IO_URING_SETUP, unix.SYS_IO_URING_ENTER, unix.SYS_IO_URING_REGISTER,
	// The records of stores, and their base during a merge. sysinfo tells how large an index may be.
	unix.SYS_PREAD64, unix.SYS_PWRITE64, unix.SYS_PWRITEV2, unix.SYS_FDATASYNC, unix.SYS_FSYNC, unix.SYS_FSTAT,
	unix.SYS_LSEEK, unix.SYS_SYSINFO,
})

// PublishingCalls are for a process that answers the clients of a listener. It makes no rings.
var PublishingCalls = slices.Concat(commonCalls, machineCalls, []uintptr{
	unix.SYS_ACCEPT4, unix.SYS_GETSOCKNAME, unix.SYS_GETPEERNAME, unix.SYS_GETSOCKOPT, unix.SYS_SETSOCKOPT, unix.SYS_SHUTDOWN,
})

// commonCalls are the calls of Go's runtime, of messages to the starter, and of descriptors that are open.
var commonCalls = []uintptr{
	// Memory.
	unix.SYS_MMAP, unix.SYS_MUNMAP, unix.SYS_MADVISE, unix.SYS_MREMAP, unix.SYS_MINCORE, unix.SYS_MLOCK,
	// Threads, signals and time. clone is in the filter itself: it may only make threads.
	unix.SYS_FUTEX, unix.SYS_EXIT, unix.SYS_EXIT_GROUP, unix.SYS_GETTID, unix.SYS_GETPID, unix.SYS_SCHED_YIELD,
	unix.SYS_SCHED_GETAFFINITY, unix.SYS_SCHED_SETAFFINITY, unix.SYS_RT_SIGACTION, unix.SYS_RT_SIGPROCMASK,
	unix.SYS_RT_SIGRETURN, unix.SYS_SIGALTSTACK, unix.SYS_RESTART_SYSCALL, unix.SYS_NANOSLEEP,
	unix.SYS_CLOCK_GETTIME, unix.SYS_GETRANDOM, unix.SYS_CAPGET, unix.SYS_CAPSET,
	// Descriptors that are open.
	unix.SYS_EVENTFD2, unix.SYS_READ, unix.SYS_WRITE, unix.SYS_CLOSE, unix.SYS_FCNTL, unix.SYS_PPOLL,
	unix.SYS_EPOLL_CREATE1, unix.SYS_EPOLL_CTL, unix.SYS_EPOLL_PWAIT, unix.SYS_RECVMSG, unix.SYS_SENDMSG,
}
