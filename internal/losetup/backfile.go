package losetup

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/internal/identity"
	"github.com/ublk-loop/ublk-loop/loop"
)

// fileOf returns the identity of a device's file, without its birth.
func fileOf(d *client.Device) identity.File {
	return identity.File{IsDisk: d.FileIsDisk, Device: d.FileDevice, Inode: d.FileInode}
}

// isAt reports whether a path leads to the device's file.
func isAt(d *client.Device, path string) bool {
	var st unix.Stat_t
	return unix.Stat(path, &st) == nil && fileOf(d).HasNumbersOf(identity.FromStat(&st))
}

// backFile returns the path of a device's file. If the path leads elsewhere, the kernel
// knows the file's present name, by a descriptor of the server; it appends " (deleted)".
func backFile(d *client.Device) string {
	if d.File == "" || isAt(d, d.File) {
		return d.File
	}
	links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", d.PID)) // the pattern is valid
	for _, link := range links {
		if !isAt(d, link) {
			continue
		}
		if name, err := os.Readlink(link); err == nil {
			return name
		}
	}
	return d.File + " (deleted)"
}

// refOf returns the text that was given for a device, or else as much of the path as the
// kernel keeps for its loop devices.
func refOf(d *client.Device) string {
	if d.Ref != "" {
		return d.Ref
	}
	return d.File[:min(len(d.File), loop.MaxRef)]
}
