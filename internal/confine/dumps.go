package confine

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// ForbidDumps must be called before the process has a key. The process then leaves no
// core dump, and other processes of the same user cannot read its memory (ptrace(2),
// PR_SET_DUMPABLE in prctl(2)). The key's own memory is also locked and excluded from
// dumps (transfer.Secret). The intermediate values of a passphrase are not.
func ForbidDumps() error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("switch core dumps off: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("make the process undumpable: %w", err)
	}
	return nil
}
