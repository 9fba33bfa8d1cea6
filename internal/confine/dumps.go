package confine

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// ForbidDumps is called before a process has a key: the process then leaves no
// core dump, and another process of the same user can't look into it (ptrace(2),
// PR_SET_DUMPABLE in prctl(2)). The key's own memory is locked and left out of
// dumps besides (transfer.Secret); what is derived from a passphrase is not.
func ForbidDumps() error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("switch core dumps off: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("keep others out: %w", err)
	}
	return nil
}
