package oci

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// checkPrivate refuses a directory that other users can pass. Root of a container can
// make setuid programs and device nodes in the overlay below it, and a user who reaches
// them on the host becomes root. The mode also covers POSIX ACLs, because the group's
// bits are their mask. checkPrivate returns an error that wraps EPERM.
func checkPrivate(dir *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &st); err != nil {
		return fmt.Errorf("look at %s: %w", dir.Name(), err)
	}
	if int(st.Uid) != os.Geteuid() || st.Mode&0o077 != 0 {
		return fmt.Errorf("%s: owner %d, mode %04o: other users can reach what a container writes, use root and 0700: %w",
			dir.Name(), st.Uid, st.Mode&0o7777, unix.EPERM)
	}
	return nil
}
