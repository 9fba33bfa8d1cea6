package confine

import (
	"fmt"
	"math"
	"os"

	"golang.org/x/sys/unix"
)

// resetInherited gives the calling thread the default attributes of a process. An exec
// would keep the attributes of the starter, which are not meant for a server (execve(2),
// prctl(2), getrlimit(2), sched(7)). docs/serve.md lists the attributes that stay on
// purpose. It needs CAP_SYS_RESOURCE, CAP_SYS_NICE and CAP_SETPCAP, and returns an error
// only if a limit would fail I/O.
func resetInherited(m Manager) error {
	if err := resetLimits(m); err != nil {
		return err
	}
	if m != Managed {
		resetScheduling()
	}
	resetProcess() // the kernel accepts a timer slack only with an ordinary scheduling policy
	return nil
}

// Manager says whether a service manager has set up this process.
type Manager bool

// A managed process keeps the scheduling and the core limit of its unit.
const (
	Managed   Manager = true
	Unmanaged Manager = false
)

// limit is a server's limit of a resource.
type limit struct {
	resource  int
	name      string // set if the limit can fail I/O
	soft, max uint64
}

const unlimited = unix.RLIM_INFINITY

// serverLimits are the limits of a server. The size of the stack is finite, because the
// kernel chooses another memory layout for an unlimited stack.
var serverLimits = []limit{
	{unix.RLIMIT_AS, "the address space (RLIMIT_AS)", unlimited, unlimited},
	{unix.RLIMIT_CPU, "the CPU time (RLIMIT_CPU)", unlimited, unlimited},
	{unix.RLIMIT_DATA, "the data (RLIMIT_DATA)", unlimited, unlimited},
	{unix.RLIMIT_FSIZE, "the size of files (RLIMIT_FSIZE)", unlimited, unlimited},
	{unix.RLIMIT_LOCKS, "", unlimited, unlimited},
	{unix.RLIMIT_MEMLOCK, "", unlimited, unlimited},
	{unix.RLIMIT_MSGQUEUE, "", messageQueueBytes, messageQueueBytes},
	{unix.RLIMIT_NICE, "", 0, 0},
	{unix.RLIMIT_NPROC, "", unlimited, unlimited}, // also limits io_uring's threads
	{unix.RLIMIT_RSS, "", unlimited, unlimited},
	{unix.RLIMIT_RTPRIO, "", 0, 0},
	{unix.RLIMIT_RTTIME, "", unlimited, unlimited},
	{unix.RLIMIT_SIGPENDING, "", unlimited, unlimited},
	{unix.RLIMIT_STACK, "", stackBytes, unlimited},
}

// coreLimit lets the administrator raise the soft limit. The soft limit is 0, because a
// core dump contains data of the disk.
var coreLimit = limit{unix.RLIMIT_CORE, "", 0, unlimited}

// These are the kernel's defaults.
const (
	fileLimit         = 1 << 20 // fs.nr_open
	messageQueueBytes = 819200
	stackBytes        = 8 << 20
	timerSlack        = 50_000 // nanoseconds
	coreFilter        = "0x33"
)

func resetLimits(m Manager) error {
	limits := serverLimits
	if m != Managed {
		limits = append([]limit{coreLimit}, limits...)
	}
	for _, l := range limits {
		if err := l.set(); err != nil {
			return err
		}
	}
	raiseFileLimit()
	return nil
}

// raiseFileLimit raises the limit of open descriptors to the kernel's default maximum. A
// device needs five descriptors, and more with more queues. Without the privilege to
// raise the limit, it stays.
func raiseFileLimit() {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil || limit.Max >= fileLimit {
		return // Go itself raises the soft limit to the hard limit
	}
	_ = unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: fileLimit, Max: fileLimit})
}

// set sets a limit as far as the privileges allow. It returns an error that wraps EPERM
// if the old limit stays and can fail I/O.
func (l *limit) set() error {
	wanted := unix.Rlimit{Cur: l.soft, Max: l.max}
	err := unix.Setrlimit(l.resource, &wanted)
	if err == nil {
		return nil
	}
	var has unix.Rlimit
	if err := unix.Getrlimit(l.resource, &has); err != nil {
		return fmt.Errorf("get a limit: %w", err)
	}
	if l.name != "" && has.Max < l.max {
		return fmt.Errorf("%s is limited to %d, which would fail I/O, and the limit cannot be raised: %w", l.name, has.Max, err)
	}
	// Without the privilege, the soft limit can be raised up to the hard limit.
	_ = unix.Setrlimit(l.resource, &unix.Rlimit{Cur: min(l.soft, has.Max), Max: has.Max})
	return nil
}

// resetProcess resets the attributes that are neither limits nor scheduling. It ignores
// errors, because a kernel without an attribute has nothing to reset.
func resetProcess() {
	_, _, _ = unix.Syscall(unix.SYS_PERSONALITY, 0, 0, 0)
	_ = unix.Prctl(unix.PR_SET_SECUREBITS, 0, 0, 0, 0)
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, timerSlack, 0, 0, 0)
	_ = unix.Prctl(unix.PR_MCE_KILL, unix.PR_MCE_KILL_CLEAR, 0, 0, 0)
	// The kernel would merge pages of the server with those of other processes, and a
	// write to such a page would then need memory.
	_ = unix.Prctl(unix.PR_SET_MEMORY_MERGE, 0, 0, 0, 0)
	_ = os.WriteFile("/proc/self/coredump_filter", []byte(coreFilter), 0)
	resetTimers()
}

// resetTimers stops the interval timers (alarm(2), setitimer(2)). An exec keeps them, and
// their signals would interrupt the server all the time.
func resetTimers() {
	for _, timer := range []unix.ItimerWhich{unix.ItimerReal, unix.ItimerVirtual, unix.ItimerProf} {
		_, _ = unix.Setitimer(timer, unix.Itimerval{})
	}
}

// resetScheduling resets the policies for CPUs, disks and memory.
func resetScheduling() {
	// The value -1 resets the util clamp, if the kernel has one.
	attr := unix.SchedAttr{
		Size: unix.SizeofSchedAttr, Policy: unix.SCHED_NORMAL, Flags: unix.SCHED_FLAG_UTIL_CLAMP, Util_min: math.MaxUint32, Util_max: math.MaxUint32,
	}
	if err := unix.SchedSetAttr(0, &attr, 0); err != nil {
		attr.Flags, attr.Util_min, attr.Util_max = 0, 0, 0
		_ = unix.SchedSetAttr(0, &attr, 0)
	}
	resetAffinity()
	const whoProcess = 1 // IOPRIO_WHO_PROCESS; 0 is the calling thread
	_, _, _ = unix.Syscall(unix.SYS_IOPRIO_SET, whoProcess, 0, 0)
	_ = unix.SetMemPolicy(unix.MPOL_DEFAULT, &unix.CPUSet{})
}

// maxCPUs is the maximum number of CPUs in a mask.
const maxCPUs = 1 << 18

// resetAffinity allows all CPUs. The kernel omits the CPUs that it lacks and those that
// the cgroup forbids.
func resetAffinity() {
	set := unix.NewCPUSet(maxCPUs)
	set.Fill()
	_ = unix.SchedSetaffinityDynamic(0, set)
}
