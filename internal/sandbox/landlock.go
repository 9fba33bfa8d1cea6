package sandbox

import (
	"errors"
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// handled are rights that Landlock denies (landlock(7)).
type handled struct{ files, net, scopes uint64 }

// added are the rights that each version of Landlock has added, beginning with version 1. The kernel refuses rights
// that it does not know.
var added = [...]handled{
	{files: 1<<13 - 1},
	{files: unix.LANDLOCK_ACCESS_FS_REFER},
	{files: unix.LANDLOCK_ACCESS_FS_TRUNCATE},
	{net: unix.LANDLOCK_ACCESS_NET_BIND_TCP | unix.LANDLOCK_ACCESS_NET_CONNECT_TCP},
	{files: unix.LANDLOCK_ACCESS_FS_IOCTL_DEV},
	{scopes: unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET | unix.LANDLOCK_SCOPE_SIGNAL},
	{}, // flags for its log
	{}, // a flag for all threads
	{files: unix.LANDLOCK_ACCESS_FS_RESOLVE_UNIX},
	{net: unix.LANDLOCK_ACCESS_NET_BIND_UDP | unix.LANDLOCK_ACCESS_NET_CONNECT_SEND_UDP},
}

// rightsOf returns the rights of a version.
func rightsOf(version int) (all handled) {
	for _, a := range added[:min(version, len(added))] {
		all.files |= a.files
		all.net |= a.net
		all.scopes |= a.scopes
	}
	return all
}

// denyFiles takes from all threads the right to open, make or remove any file, to connect or bind TCP and UDP
// sockets, to reach unix sockets outside, and to signal processes outside. It returns an error that wraps
// ErrUnsupported if the kernel lacks Landlock.
func denyFiles() error {
	version, err := landlockVersion()
	if err != nil {
		return err
	}
	fd, err := newRules(rightsOf(version))
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(int(fd)) }()
	if _, _, errno := syscall.AllThreadsSyscall(unix.SYS_LANDLOCK_RESTRICT_SELF, fd, 0, 0); errno != 0 {
		return fmt.Errorf("enforce Landlock rules: %w", errno)
	}
	return nil
}

// newRules returns a descriptor of rules that deny these rights, without an exception.
func newRules(denied handled) (fd uintptr, err error) {
	attr := unix.LandlockRulesetAttr{Handled_access_fs: denied.files, Handled_access_net: denied.net, Scoped: denied.scopes}
	fd, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr), 0)
	if errno != 0 {
		return 0, fmt.Errorf("make Landlock rules: %w", errno)
	}
	return fd, nil
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
