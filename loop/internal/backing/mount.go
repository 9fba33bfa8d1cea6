package backing

import (
	"bufio"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/identity"
	"github.com/ublk-loop/ublk-loop/internal/mountpoint"
)

// fileDisk returns the number of the disk of the file. Most file systems have the number
// of their disk. A btrfs has a number for each subvolume, and its disk is found by its
// mount. fileDisk returns fs.ErrNotExist if there is no disk or more than one.
func (b *Backing) fileDisk(sysfs *os.Root) (uint64, error) {
	if unix.Major(b.Dev) != 0 {
		return b.Dev, nil
	}
	source, err := b.mountSource()
	if err != nil {
		return 0, err
	}
	var st unix.Stat_t
	if err := unix.Stat(source, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return 0, fs.ErrNotExist
	}
	if !aloneInBtrfs(sysfs, st.Rdev) {
		return 0, fs.ErrNotExist
	}
	return st.Rdev, nil
}

// mountSource returns the source of the mount of a btrfs file.
func (b *Backing) mountSource() (string, error) {
	var stx unix.Statx_t
	err := unix.Statx(b.FD, "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &stx)
	if err != nil || stx.Mask&unix.STATX_MNT_ID == 0 {
		return "", fs.ErrNotExist
	}
	mounts, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	defer func() { _ = mounts.Close() }()
	return findBtrfsSource(mounts, stx.Mnt_id)
}

// findBtrfsSource finds the source of a btrfs mount in /proc/PID/mountinfo:
//
//	36 35 0:98 /subvolume /mnt rw,noatime shared:1 - btrfs /dev/vda rw
func findBtrfsSource(mounts io.Reader, id uint64) (string, error) {
	lines := bufio.NewScanner(mounts)
	for lines.Scan() {
		mount, system, found := strings.Cut(lines.Text(), " - ")
		number, _, _ := strings.Cut(mount, " ")
		if !found || number != strconv.FormatUint(id, 10) {
			continue
		}
		fields := mountpoint.Fields(system)
		if len(fields) < 2 || fields[0] != "btrfs" || fields[1] == "" {
			return "", fs.ErrNotExist
		}
		return mountpoint.Unescape(fields[1]), nil
	}
	if err := lines.Err(); err != nil {
		return "", fmt.Errorf("read mounts: %w", err)
	}
	return "", fs.ErrNotExist
}

// aloneInBtrfs reports whether a disk is the only disk of its btrfs.
func aloneInBtrfs(sysfs *os.Root, dev uint64) bool {
	systems, err := fs.Glob(sysfs.FS(), "fs/btrfs/*/devices")
	if err != nil {
		return false
	}
	for _, dir := range systems {
		disks, err := fs.ReadDir(sysfs.FS(), dir)
		if err != nil || len(disks) != 1 {
			continue
		}
		number, err := sysfs.ReadFile(path.Join(dir, disks[0].Name(), "dev"))
		if err == nil && strings.TrimSpace(string(number)) == identity.MajMin(dev) {
			return true
		}
	}
	return false
}
