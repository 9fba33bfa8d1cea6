package mountpoint

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// IsIdmapped reports whether path is in an idmapped mount, which shows files with other
// owners (mount_setattr(2)). Linux says so in mountinfo only.
func IsIdmapped(path string) (bool, error) {
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
		fields := strings.Fields(line)
		if len(fields) > 5 && fields[0] == strconv.FormatUint(id, 10) {
			return strings.Split(fields[5], ","), nil
		}
	}
	return nil, fmt.Errorf("mountinfo has no mount %d: %w", id, unix.ENODATA)
}
