package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/loop"
)

// This file finds out which devices an argument stands for.

// maxID is the largest number that the driver gives a device.
const maxID = 1<<20 - 1

// parseID parses the number of a device, written as it is printed.
func parseID(text string) (uint32, bool) {
	id, err := strconv.ParseUint(text, 10, 32)
	if err != nil || id > maxID || strconv.FormatUint(id, 10) != text {
		return 0, false
	}
	return uint32(id), true
}

// allDevices reports whether arguments all name devices, and no files.
func allDevices(args []string) bool {
	for _, arg := range args {
		if _, ok := deviceID(arg); !ok {
			return false
		}
	}
	return true
}

// deviceID returns the id that an argument stands for: a number, /dev/ublkbN,
// /dev/ublkcN, or whatever path leads to such a disk.
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

// diskID returns the id of the ublk disk that a path leads to.
func diskID(path string) (uint32, bool) {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return 0, false
	}
	link, err := os.Readlink(fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev)))
	if err != nil {
		return 0, false
	}
	number, found := strings.CutPrefix(filepath.Base(link), "ublkb")
	if !found {
		return 0, false
	}
	return parseID(number)
}

// findFile returns the ids of the devices that a file is attached to. A file
// that has been removed is known by the path that it had.
func findFile(drv driver, path string) ([]uint32, error) {
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

// findPath returns the ids of the devices that were made of what had a path,
// and the given error for none.
func findPath(drv driver, path string, none error) ([]uint32, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	devices, err := drv.List()
	if err != nil {
		return nil, err
	}
	var ids []uint32
	for i := range devices {
		if devices[i].File == abs {
			ids = append(ids, devices[i].ID)
		}
	}
	if len(ids) == 0 {
		return nil, none
	}
	return ids, nil
}
