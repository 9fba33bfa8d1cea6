// Package identity tells files and disks apart. A name is never an identity: it may
// be another file's by the time that it is looked up again.
package identity

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// File is what a file or a disk is known by.
type File struct {
	IsDisk bool
	// Device is the number of a disk, or of the file system that a file is in, as
	// "major:minor".
	Device string
	Inode  uint64 // of a file
	// Birth is when a file was made, in nanoseconds, 0 if the file system does not
	// know. The number of an inode is soon another file's; the two together are not.
	Birth int64
}

// Of returns the identity of an open file or disk, be it open for its path only.
func Of(file *os.File) (File, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil {
		return File{}, fmt.Errorf("stat %s: %w", file.Name(), err)
	}
	f := FromStat(&st)
	if !f.IsDisk {
		f.Birth = Birth(int(file.Fd()))
	}
	return f, nil
}

// FromStat returns the identity of a file or disk without its birth. What is neither
// has none, which is no file's.
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
// disk never do: the number of a file system is that of the disk below it.
func (f File) HasNumbersOf(other File) bool {
	return f.Device != "" && f.IsDisk == other.IsDisk && f.Device == other.Device && (f.IsDisk || f.Inode == other.Inode)
}

// Is reports whether two files or disks are the same. If only one of two births is
// known, the files are not.
func (f File) Is(other File) bool {
	return f.HasNumbersOf(other) && (f.IsDisk || f.Birth == other.Birth)
}

// Birth returns when an open file was made, in nanoseconds, 0 if the file system does
// not know.
func Birth(fd int) int64 {
	var stx unix.Statx_t
	err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_BTIME, &stx)
	if err != nil || stx.Mask&unix.STATX_BTIME == 0 {
		return 0
	}
	return stx.Btime.Sec*int64(time.Second) + int64(stx.Btime.Nsec)
}

// MajMin writes the number of a device as sysfs does.
func MajMin(dev uint64) string { return fmt.Sprintf("%d:%d", unix.Major(dev), unix.Minor(dev)) }
