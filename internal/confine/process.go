package confine

import (
	"fmt"
	"math"
	"os"

	"golang.org/x/sys/unix"
)

// ProtectFromOOM keeps the OOM killer from a process: killing a server would
// free little, and fail the I/O of all that use its device. It returns a
// warning where that cannot be had (it needs CAP_SYS_RESOURCE).
func ProtectFromOOM(pid int) []string {
	err := os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid), []byte("-1000"), 0)
	if err != nil {
		return []string{fmt.Sprintf("not safe from the OOM killer: %v", err)}
	}
	return nil
}

// CloseInherited has what the caller left open closed by the next exec, be it
// a lock or the other end of somebody's pipe.
func CloseInherited() error {
	if err := unix.CloseRange(3, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("mark descriptors: %w", err)
	}
	return nil
}

// RaiseFileLimit lets the server have as many descriptors open as the kernel
// allows by default: five a device, and more with more queues. Who may not raise
// the limit keeps it.
func RaiseFileLimit() {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil || limit.Max >= fileLimit {
		return // Go raises the soft limit to the hard one itself
	}
	_ = unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: fileLimit, Max: fileLimit})
}

// fileLimit is the kernel's own limit, fs.nr_open, where nobody has changed it.
const fileLimit = 1 << 20
