package sandbox

import (
	"errors"
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The rights of each version of Landlock (landlock(7)). The kernel refuses rights that it does not know.
var (
	fileRights  = [...]uint64{0x1fff, 0x3fff, 0x7fff, 0x7fff, 0xffff}
	netRights   = uint64(unix.LANDLOCK_ACCESS_NET_BIND_TCP | unix.LANDLOCK_ACCESS_NET_CONNECT_TCP) // version 4
	scopeRights = uint64(unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET | unix.LANDLOCK_SCOPE_SIGNAL)    // version 6
)

// denyFiles takes from all threads the right to open, make or remove any file, to connect or bind TCP
// sockets, and to signal processes outside. It returns an error that wraps ErrUnsupported if the
// kernel lacks Landlock.
func denyFiles() error {
	version, err := landlockVersion()
	if err != nil {
		return err
	}
	attr := unix.LandlockRulesetAttr{Handled_access_fs: fileRights[min(version, len(fileRights))-1]}
	if version >= 4 {
		attr.Handled_access_net = netRights
	}
	if version >= 6 {
		attr.Scoped = scopeRights
	}
	fd, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr), 0)
	if errno != 0 {
		return fmt.Errorf("make Landlock rules: %w", errno)
	}
	defer func() { _ = unix.Close(int(fd)) }()
	if _, _, errno := syscall.AllThreadsSyscall(unix.SYS_LANDLOCK_RESTRICT_SELF, fd, 0, 0); errno != 0 {
		return fmt.Errorf("enforce Landlock rules: %w", errno)
	}
	return nil
}

// landlockVersion returns the version of the kernel's Landlock, which is at least 1.
func landlockVersion() (int, error) {
	version, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	switch {
	case errors.Is(errno, unix.ENOSYS), errors.Is(errno, unix.EOPNOTSUPP): // not built in, or not enabled at boot
		return 0, fmt.Errorf("landlock: %w: %w", errors.ErrUnsupported, errno)
	case errno != 0:
		return 0, fmt.Errorf("find the version of Landlock: %w", errno)
	}
	return int(version), nil
}
