package losetup

import (
	"errors"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/internal/identity"
)

const blockPrefix = "/dev/ublkb"

func blockPath(id uint32) string { return blockPrefix + decimal(uint64(id)) }

// devicePath returns the path of the device with a name, which may lack /dev.
func devicePath(name string) string {
	if strings.HasPrefix(name, "/") {
		return name
	}
	return "/dev/" + name
}

// parseID returns the number in a device's path.
func parseID(path string) (uint32, bool) {
	digits, found := strings.CutPrefix(filepath.Clean(path), blockPrefix)
	id, err := strconv.ParseUint(digits, 10, 32)
	return uint32(id), found && err == nil && digits == decimal(id)
}

// find returns the device with a name. It returns ENXIO for a ublk device that does not
// exist or is not ours, ENOTTY for another object, and otherwise the error of stat(2).
func find(all []client.Device, name string) (*client.Device, error) {
	path := devicePath(name)
	var st unix.Stat_t
	err := unix.Stat(path, &st)
	isDisk := err == nil && st.Mode&unix.S_IFMT == unix.S_IFBLK
	for i := range all {
		d := &all[i]
		if d.Device == filepath.Clean(path) || isDisk && d.MajMin == identity.MajMin(st.Rdev) {
			return d, nil
		}
	}
	switch _, isUblk := parseID(path); {
	case isUblk:
		return nil, unix.ENXIO
	case err != nil:
		return nil, err
	}
	return nil, unix.ENOTTY
}

// ofFiles returns the devices that have one file or disk. Those of tables are not losetup's.
func ofFiles(all []client.Device) []*client.Device {
	list := []*client.Device{}
	for i := range all {
		if all[i].File != "" {
			list = append(list, &all[i])
		}
	}
	return list
}

// ofFile returns the devices of the file that is asked for, which may no longer exist.
func (r *request) ofFile(devices []*client.Device) []*client.Device {
	var list []*client.Device
	for _, d := range devices {
		if isOf(d, r.file) && (!r.hasOffset || d.Offset == r.offset) && (!r.hasOffset || !r.hasSizeLimit || d.SizeLimit == r.sizeLimit) {
			list = append(list, d)
		}
	}
	return list
}

// isOf reports whether a device has the file at a path, or had it before it was removed.
func isOf(d *client.Device, path string) bool {
	var st unix.Stat_t
	err := unix.Stat(path, &st)
	switch {
	case err == nil:
		return fileOf(d).HasNumbersOf(identity.FromStat(&st))
	case !errors.Is(err, unix.ENOENT):
		return false
	}
	abs, err := filepath.Abs(path)
	return err == nil && (d.File == abs || backFile(d) == path)
}
