package mountpoint

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"structs"
	"unsafe"

	"golang.org/x/sys/unix"
)

// IsIdmapped reports whether path is in an idmapped mount, which shows files with other
// owners (mount_setattr(2)). Before Linux 6.8 only mountinfo says so, which takes longer the
// more mounts there are.
func IsIdmapped(path string) (bool, error) {
	is, err := isIdmapped(path)
	if errors.Is(err, unix.ENOSYS) {
		return isIdmappedInMountinfo(path)
	}
	return is, err
}

// isIdmapped asks the kernel for the attributes of the mount. It returns ENOSYS before Linux 6.8.
func isIdmapped(path string) (bool, error) {
	var stx unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_MNT_ID_UNIQUE, &stx); err != nil {
		return false, fmt.Errorf("stat %s: %w", path, err)
	}
	if stx.Mask&unix.STATX_MNT_ID_UNIQUE == 0 {
		return false, unix.ENOSYS
	}
	attributes, err := mountAttributes(stx.Mnt_id)
	return attributes&unix.MOUNT_ATTR_IDMAP != 0, err
}

// mountRequest is struct mnt_id_req of linux/mount.h, in its first version.
type mountRequest struct {
	_     structs.HostLayout
	size  uint32
	_     uint32
	mount uint64
	mask  uint64
}

// mountStatus is the first part of struct statmount of linux/mount.h.
type mountStatus struct {
	_          structs.HostLayout
	size       uint32
	_          uint32
	mask       uint64
	_          [6]uint64
	attributes uint64
	_          [440]byte
}

// statmountBasic is STATMOUNT_MNT_BASIC, which asks for the attributes of a mount.
const statmountBasic = 2

// mountAttributes returns the attributes of a mount, given its unique id (statmount(2)).
func mountAttributes(id uint64) (uint64, error) {
	request := mountRequest{mount: id, mask: statmountBasic}
	request.size = uint32(unsafe.Sizeof(request))
	var status mountStatus
	// The kernel writes at most the given size, into status. The variables do not move during the call
	// (pattern 4 of unsafe.Pointer).
	_, _, errno := unix.Syscall6(unix.SYS_STATMOUNT, uintptr(unsafe.Pointer(&request)), uintptr(unsafe.Pointer(&status)), unsafe.Sizeof(status), 0, 0, 0)
	switch {
	case errno != 0:
		return 0, os.NewSyscallError("statmount", errno)
	case status.mask&statmountBasic == 0:
		return 0, fmt.Errorf("statmount: no attributes: %w", unix.ENOSYS)
	}
	return status.attributes, nil
}

// isIdmappedInMountinfo is IsIdmapped for kernels without statmount(2).
func isIdmappedInMountinfo(path string) (bool, error) {
	var stx unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_MNT_ID, &stx); err != nil {
		return false, fmt.Errorf("stat %s: %w", path, err)
	}
	mountinfo, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		return false, err
	}
	options, err := optionsOf(string(mountinfo), stx.Mnt_id)
	return slices.Contains(options, "idmapped"), err
}

// optionsOf returns the options of the mount with an id. It returns an error that wraps
// ENODATA if the mount is missing.
func optionsOf(mountinfo string, id uint64) ([]string, error) {
	for line := range strings.Lines(mountinfo) {
		fields := Fields(line)
		if len(fields) > 5 && fields[0] == strconv.FormatUint(id, 10) {
			return strings.Split(fields[5], ","), nil
		}
	}
	return nil, fmt.Errorf("mountinfo has no mount %d: %w", id, unix.ENODATA)
}
