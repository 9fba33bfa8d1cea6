package mounthelper

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/internal/identity"
	"github.com/ublk-loop/ublk-loop/internal/mountpoint"
	"github.com/ublk-loop/ublk-loop/transfer"
)

// existing returns the device that has the requested part of the image, or nil. As for loop
// devices, a part that only overlaps is an error.
func (r *request) existing(devices []client.Device) (*client.Device, error) {
	for i := range devices {
		d := &devices[i]
		end, wantedEnd := endOf(d.Offset, d.SizeLimit), endOf(r.config.Offset, r.config.SizeLimit)
		switch same := r.hasPartOf(d); {
		case d.State != "live" || d.MajMin == "" || d.File == "":
			continue
		case same:
			return d, nil
		case !r.luks && d.Transfer.LUKS == 0 && d.Offset < wantedEnd && r.config.Offset < end && !(d.ReadOnly && r.config.ReadOnly):
			return nil, fmt.Errorf("%s has a part of it that overlaps: %w", d.Device, unix.EBUSY)
		}
	}
	return nil, nil
}

// hasPartOf reports whether a device of the image has the requested part of it.
func (r *request) hasPartOf(d *client.Device) bool {
	if r.luks {
		return d.Transfer.LUKS != 0 && d.Transfer.LUKSOffset == r.config.Offset
	}
	wanted := &r.config.Transfer
	isPlain := wanted.Name == "" && d.Transfer.Name == transfer.None
	isSame := wanted.Name == d.Transfer.Name && wanted.IVOffset == d.Transfer.IVOffset
	return d.Transfer.LUKS == 0 && (isPlain || isSame) && d.Offset == r.config.Offset && d.SizeLimit == r.config.SizeLimit
}

// endOf returns the end of a part, which without a limit is the largest offset.
func endOf(offset, limit uint64) uint64 {
	if end := offset + limit; limit != 0 && end >= offset {
		return end
	}
	return ^uint64(0)
}

// open opens a device, so that its number remains the device's until it is closed.
func open(d *client.Device) (*os.File, error) {
	disk, err := os.Open(d.Device)
	if err != nil {
		return nil, err
	}
	if n, err := identity.Sequence(disk); err != nil || d.DiskSequence != 0 && n != d.DiskSequence {
		return nil, errors.Join(fmt.Errorf("%s: another device has its number now: %w", d.Device, unix.ENODEV), err, disk.Close())
	}
	return disk, nil
}

// isMountedAt reports whether a device is mounted at a directory, below no other mount.
func isMountedAt(mountinfo []byte, device, dir string) bool {
	is := false
	for line := range bytes.Lines(mountinfo) {
		before, after, _ := strings.Cut(strings.TrimSuffix(string(line), "\n"), " - ")
		fields, source := mountpoint.Fields(before), mountpoint.Fields(after)
		if len(fields) > 4 && len(source) > 1 && mountpoint.Unescape(fields[4]) == dir {
			is = mountpoint.Unescape(source[1]) == device
		}
	}
	return is
}

// isMounted is isMountedAt for the mounts of this process.
func (r *request) isMounted(device string) (bool, error) {
	dir, err := filepath.EvalSymlinks(r.dir)
	if err == nil {
		dir, err = filepath.Abs(dir)
	}
	if err != nil {
		return false, err
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	return isMountedAt(mounts, device, dir), err
}
