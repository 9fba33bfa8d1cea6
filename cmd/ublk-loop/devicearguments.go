package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/loop"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// This file translates arguments to devices.

// maxID is the largest device number that the driver gives.
const maxID = 1<<20 - 1

// parseID parses a device number in its printed form, without leading zeros.
func parseID(text string) (uint32, bool) {
	id, err := strconv.ParseUint(text, 10, 32)
	if err != nil || id > maxID || strconv.FormatUint(id, 10) != text {
		return 0, false
	}
	return uint32(id), true
}

// target is a device that an argument names.
type target struct {
	id uint32
	// sequence and tag are the DiskSequence and Tag of a device that was found by its file.
	// The device may go before the command acts, and another device may get its number. They
	// are nil and 0 if the argument is the number or the disk itself.
	sequence *uint64
	tag      uint64
}

// is reports whether the target is this device.
func (t *target) is(d *client.Device) bool {
	switch {
	case t.id != d.ID:
		return false
	case t.tag != 0 && d.Tag != 0:
		return t.tag == d.Tag
	}
	return t.sequence == nil || *t.sequence == d.DiskSequence
}

// foundTargets returns devices that were found by their file.
func foundTargets(devices []client.Device) []target {
	var targets []target
	for i := range devices {
		targets = append(targets, target{devices[i].ID, &devices[i].DiskSequence, devices[i].Tag})
	}
	return targets
}

// targetsOf returns the devices that an argument names, at least one.
func targetsOf(drv driver, arg string) ([]target, error) {
	if id, ok := deviceID(arg); ok {
		return []target{{id: id}}, nil
	}
	devices, err := findFile(drv, arg)
	if err == nil && len(devices) == 0 {
		err = noDevice(drv, arg)
	}
	return foundTargets(devices), err
}

// noDevice returns the error for a file that has no device, with what the user may mean.
func noDevice(drv driver, path string) error {
	if err := refusePartition(path); err != nil {
		return err
	}
	err := errors.New("it has no device")
	if former := formerDevice(drv, path); former != "" {
		return hint.Add(err, "%s has another file or disk, which had this path before", former)
	}
	return hint.Add(err, "ublk-loop list shows all devices with their files")
}

// formerDevice returns the path of a device whose file or disk once had this path, which another
// has now. It returns an empty text if there is none.
func formerDevice(drv driver, path string) string {
	former, err := findPath(drv, path, nil)
	if err != nil || len(former) == 0 {
		return ""
	}
	return former[0].Device
}

// deviceID returns the id of the device that an argument names: a number, /dev/ublkbN,
// /dev/ublkcN, or any other path to such a disk.
func deviceID(arg string) (uint32, bool) {
	if id, ok := parseID(arg); ok {
		return id, true
	}
	path := filepath.Clean(arg)
	for _, prefix := range []string{"/dev/ublkb", "/dev/ublkc"} {
		if number, found := strings.CutPrefix(path, prefix); found {
			if id, ok := parseID(number); ok {
				return id, true
			}
		}
	}
	return diskID(path)
}

// diskID returns the id of the ublk disk at a path.
func diskID(path string) (uint32, bool) { return idOfName(filepath.Base(sysPath(path))) }

// refusePartition returns an error if the path is a partition of a ublk disk.
func refusePartition(path string) error {
	id, ok := idOfName(filepath.Base(filepath.Dir(sysPath(path))))
	if !ok {
		return nil
	}
	disk := ublk.BlockPath(id)
	return hint.Add(fmt.Errorf("%s is a partition of %s: %w", path, disk, unix.EINVAL), "name the disk: %s", disk)
}

// idOfName returns the id of the ublk disk with a name, such as ublkb0.
func idOfName(name string) (uint32, bool) {
	number, found := strings.CutPrefix(name, "ublkb")
	if !found {
		return 0, false
	}
	return parseID(number)
}

// sysPath returns the target of the link in /sys/dev/block for the block device at a path, or an
// empty text. The directory of a partition is in that of its disk.
func sysPath(path string) string {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return ""
	}
	link, err := os.Readlink(fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev)))
	if err != nil {
		return ""
	}
	return link
}

// findFile returns the devices of a file. It finds a removed file by its former path.
func findFile(drv driver, path string) ([]client.Device, error) {
	file, err := loop.OpenPath(path)
	if errors.Is(err, unix.ENOENT) {
		return findPath(drv, path, err)
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	return drv.Find(file)
}

// findPath returns the devices whose file had this path. If no device had it, findPath
// returns the error none.
func findPath(drv driver, path string, none error) ([]client.Device, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	devices, err := drv.List()
	if err != nil {
		return nil, err
	}
	isAbs := func(f client.DeviceFile) bool { return f.File == abs }
	devices = slices.DeleteFunc(devices, func(d client.Device) bool { return d.File != abs && !slices.ContainsFunc(d.Files, isAbs) })
	if len(devices) > 0 {
		return devices, nil
	}
	if id, ok := idOfName(path); ok { // as lsblk(8) prints it
		none = hint.Add(none, "the device is %s", ublk.BlockPath(id))
	}
	return nil, none
}
