package confine

import (
	"fmt"
	"math"
	"os"

	"golang.org/x/sys/unix"
)

// ProtectFromOOM keeps the OOM killer from killing a process. Killing a server would free
// little memory, and fail the I/O of all users of its device. It returns a warning if it
// fails; it needs CAP_SYS_RESOURCE.
func ProtectFromOOM(pid int) []string {
	err := os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid), []byte("-1000"), 0)
	if err != nil {
		return []string{fmt.Sprintf("not safe from the OOM killer: %v", err)}
	}
	return nil
}

// LeaveToOOM undoes what a process has inherited of ProtectFromOOM.
func LeaveToOOM(pid int) error {
	return os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid), []byte("0"), 0)
}

// CloseInherited marks all descriptors of the caller close-on-exec, so that the next exec
// closes inherited locks and pipes.
func CloseInherited() error {
	if err := unix.CloseRange(3, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("mark descriptors: %w", err)
	}
	return nil
}
