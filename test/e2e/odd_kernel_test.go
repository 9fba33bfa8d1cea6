package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// oddVariable makes this program change all attributes that a process inherits, and then
// execute the program that its arguments name. These are its values.
const (
	oddVariable = "UBLK_LOOP_TEST_ODD"
	oddAll      = "all"
	oddLimited  = "limited" // only the limit of the file size, without the privilege to raise it
)

func init() {
	how := os.Getenv(oddVariable)
	if how == "" {
		return
	}
	err := os.Unsetenv(oddVariable)
	switch {
	case err != nil:
	case how == oddLimited:
		err = beLimited()
	default:
		err = beOdd() // init runs on the main thread
	}
	if err == nil {
		err = unix.Exec(os.Args[1], os.Args[1:], append(os.Environ(), "GOGC=5", "GOMEMLIMIT=100MiB", "GOMAXPROCS=1"))
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// oddFile is the maximum file size that an odd process may write.
const oddFile = 1 << 20

// oddLimits disturb a server, but not the command.
var oddLimits = map[int]uint64{
	unix.RLIMIT_AS: 8 << 30, unix.RLIMIT_CORE: 1 << 20, unix.RLIMIT_CPU: 1000, unix.RLIMIT_DATA: 4 << 30, unix.RLIMIT_FSIZE: oddFile,
	unix.RLIMIT_LOCKS: 10, unix.RLIMIT_MEMLOCK: 64 << 10, unix.RLIMIT_MSGQUEUE: 1, unix.RLIMIT_NICE: 20, unix.RLIMIT_NOFILE: 64,
	unix.RLIMIT_NPROC: 100, unix.RLIMIT_RSS: 1 << 20, unix.RLIMIT_RTPRIO: 5, unix.RLIMIT_RTTIME: 1_000_000_000,
	unix.RLIMIT_SIGPENDING: 100, unix.RLIMIT_STACK: unix.RLIM_INFINITY,
}

// Package unix lacks these numbers.
const (
	addrNoRandomize    = 0x0040000 // personality(2)
	noSetuidFixup      = 1 << 2    // SECBIT_NO_SETUID_FIXUP, capabilities(7)
	noAmbientRaise     = 1 << 6    // SECBIT_NO_CAP_AMBIENT_RAISE
	ioprioBestEffort7  = 2<<13 | 7 // IOPRIO_CLASS_BE, ioprio_set(2)
	ioprioWhoProcess   = 1
	oddSlack           = 7_000_000
	mceKill, killEarly = unix.PR_MCE_KILL_SET, unix.PR_MCE_KILL_EARLY
)

// beOdd changes the attributes of the calling thread and its process.
func beOdd() error {
	signal.Ignore(unix.SIGHUP, unix.SIGINT, unix.SIGTERM, unix.SIGCHLD, unix.SIGUSR1, unix.SIGPIPE, unix.SIGXFSZ)
	unix.Umask(0o777)
	slack := func() error { return unix.Prctl(unix.PR_SET_TIMERSLACK, oddSlack, 0, 0, 0) }
	steps := []struct {
		what string
		do   func() error
		may  bool // may fail, because some kernels lack it
	}{
		{"filter", func() error { return os.WriteFile("/proc/self/coredump_filter", []byte("0x7f"), 0) }, false},
		{"oom_score_adj", func() error { return os.WriteFile("/proc/self/oom_score_adj", []byte("500"), 0) }, false},
		{"personality", func() error { return raw(unix.SYS_PERSONALITY, addrNoRandomize, 0, 0) }, false},
		{"timer slack", slack, false},
		{"securebits", func() error { return unix.Prctl(unix.PR_SET_SECUREBITS, noSetuidFixup|noAmbientRaise, 0, 0, 0) }, false},
		{"machine checks", func() error { return unix.Prctl(unix.PR_MCE_KILL, mceKill, killEarly, 0, 0) }, false},
		{"merging", func() error { return unix.Prctl(unix.PR_SET_MEMORY_MERGE, 1, 0, 0, 0) }, true},
		{"io priority", func() error { return raw(unix.SYS_IOPRIO_SET, ioprioWhoProcess, 0, ioprioBestEffort7) }, false},
		{"memory policy", func() error { return unix.SetMemPolicy(unix.MPOL_INTERLEAVE, &unix.CPUSet{1}) }, true},
		{"affinity", func() error { return unix.SchedSetaffinity(0, &unix.CPUSet{1}) }, false},
		{"nice", func() error { return unix.Setpriority(unix.PRIO_PROCESS, 0, 15) }, false},
		{"util clamp", func() error { return setScheduler(unix.SCHED_FLAG_KEEP_ALL|unix.SCHED_FLAG_UTIL_CLAMP_MAX, 0, 0, 100) }, true},
		{"scheduler", func() error { return setScheduler(0, unix.SCHED_RR, 1, 0) }, false},
		{"signals", func() error {
			blocked := unix.Sigset_t{Val: [16]uint64{1<<(unix.SIGTERM-1) | 1<<(unix.SIGUSR2-1)}}
			return unix.PthreadSigmask(unix.SIG_BLOCK, &blocked, nil)
		}, false},
	}
	for _, s := range steps {
		err := s.do()
		missing := errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP)
		if err != nil && !(s.may && missing) {
			return fmt.Errorf("%s: %w", s.what, err)
		}
	}
	for resource, n := range oddLimits {
		if err := syscall.Setrlimit(resource, &syscall.Rlimit{Cur: n, Max: n}); err != nil {
			return fmt.Errorf("limit %d: %w", resource, err)
		}
	}
	return nil
}

// beLimited limits the file size for ever.
func beLimited() error {
	if err := syscall.Setrlimit(unix.RLIMIT_FSIZE, &syscall.Rlimit{Cur: oddFile, Max: oddFile}); err != nil {
		return err
	}
	return unix.Prctl(unix.PR_CAPBSET_DROP, unix.CAP_SYS_RESOURCE, 0, 0, 0)
}

func raw(trap, a, b, c uintptr) error {
	if _, _, errno := unix.Syscall(trap, a, b, c); errno != 0 {
		return errno
	}
	return nil
}

func setScheduler(flags uint64, policy, priority, clamp uint32) error {
	return unix.SchedSetAttr(0, &unix.SchedAttr{
		Size: unix.SizeofSchedAttr, Flags: flags, Policy: policy, Priority: priority, Util_max: clamp,
	}, 0)
}
