// Package identity distinguishes files and disks. It never uses names, because a name may
// lead to another file at the next lookup.
package identity

import (
	"fmt"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// File is the identity of a file or a disk.
type File struct {
	IsDisk bool
	// Device is the number of a disk, or of the file system of a file, as "major:minor".
	Device string
	Inode  uint64 // of a file
	// Birth is the creation time of a file in nanoseconds, or 0 if the file system does
	// not record it. The kernel soon reuses the number of an inode, but not together with
	// the creation time.
	Birth int64
	// Disk is the disk itself, or the disk of a file's file system. It is the zero value
	// if the file system has no disk or several disks.
	Disk Disk
}

// Of returns the identity of an open file or disk, which may be open with O_PATH.
func Of(file *os.File) (File, error) {
	f, err := OfDescriptor(int(file.Fd()))
	runtime.KeepAlive(file)
	if err != nil {
		return File{}, fmt.Errorf("identify %s: %w", file.Name(), err)
	}
	return f, nil
}

// OfDescriptor is Of for a descriptor.
func OfDescriptor(fd int) (File, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return File{}, fmt.Errorf("stat: %w", err)
	}
	f := FromStat(&st)
	var err error
	if f.IsDisk {
		f.Disk, err = diskOf(fd, st.Rdev)
		return f, err
	}
	f.Birth = birth(fd)
	if unix.Major(st.Dev) != 0 {
		f.Disk, err = diskNumbered("/sys", st.Dev) // the open file keeps its disk's number
	}
	return f, err
}

// FromStat returns the identity of a file or disk by its numbers alone. For other file
// types it returns the zero value, which is no file's identity.
func FromStat(st *unix.Stat_t) File {
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return File{Device: MajMin(st.Dev), Inode: st.Ino}
	case unix.S_IFBLK:
		return File{IsDisk: true, Device: MajMin(st.Rdev)}
	}
	return File{}
}

// HasNumbersOf reports whether two files or disks have the same numbers. A file and a
// disk never do, although the number of a file system is the number of its disk.
func (f File) HasNumbersOf(other File) bool {
	return f.Device != "" && f.IsDisk == other.IsDisk && f.Device == other.Device && (f.IsDisk || f.Inode == other.Inode)
}

// Is reports whether f is the file or disk that was once recorded as was. If only one of
// two births is known, the files are not the same. A disk may have a new number if its
// Disk proves that it is the same.
func (f File) Is(was File) bool {
	switch {
	case f.IsDisk != was.IsDisk || !f.Disk.is(was.Disk):
		return false
	case f.Disk.Sequence == 0 || was.Disk.Sequence == 0:
		return f.HasNumbersOf(was) && (f.IsDisk || f.Birth == was.Birth)
	}
	return f.IsDisk || f.Inode == was.Inode && f.Birth == was.Birth
}

// birth returns the creation time of an open file in nanoseconds, or 0 if the file system
// does not record it.
func birth(fd int) int64 {
	var stx unix.Statx_t
	err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_BTIME, &stx)
	if err != nil || stx.Mask&unix.STATX_BTIME == 0 {
		return 0
	}
	return stx.Btime.Sec*int64(time.Second) + int64(stx.Btime.Nsec)
}

// MajMin formats the number of a device as sysfs does.
func MajMin(dev uint64) string { return fmt.Sprintf("%d:%d", unix.Major(dev), unix.Minor(dev)) }
