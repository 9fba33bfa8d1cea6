package filelock

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/identity"
)

// Range is a part of a file or disk, in bytes.
type Range struct {
	Offset, Length uint64 // a Length of 0 means until the end, even if the object grows
}

// Overlaps reports whether two parts have a byte in common.
func (r Range) Overlaps(other Range) bool {
	return (r.Length == 0 || r.Offset+r.Length > other.Offset) && (other.Length == 0 || other.Offset+other.Length > r.Offset)
}

// sectors is a range of bytes in the file of an object. Each byte stands for 512 bytes of
// the object.
type sectors struct {
	start, length int64 // a length of 0 means until the end
}

const (
	// sectorBits is the binary logarithm of the bytes that a byte stands for. A lock has
	// at most 2^63 bytes.
	sectorBits = 9
	// objectSectors is the number of sectors of the largest object, which has 2^63 bytes.
	// The locks of rings are behind it.
	objectSectors = 1 << (63 - sectorBits)
)

// everything is the whole file of an object, and ofProcesses the part without the locks
// of rings.
var (
	everything  = sectors{}
	ofProcesses = sectors{0, objectSectors}
)

// unlocked is the mode that ends a lock.
const unlocked Mode = unix.F_UNLCK

// sectorsOf returns the position of the lock for a range. A partition is a part of its
// disk. The position is inside the object even if the range is not, because it must not cover what
// other servers have: ranges are locked before they are compared with the object's size.
func sectorsOf(object identity.File, r Range) sectors {
	start, end := r.Offset>>sectorBits, uint64(objectSectors)
	if r.Length != 0 {
		end = (r.Offset + r.Length + 1<<sectorBits - 1) >> sectorBits
	}
	if part := object.Disk; object.IsDisk && part.Size != 0 {
		start = part.Start + min(start, part.Size-1)
		end = part.Start + min(end, part.Size)
	}
	start, end = min(start, objectSectors-1), min(end, objectSectors)
	return sectors{int64(start), max(int64(end)-int64(start), 1)}
}

// Overlap reports whether parts of two objects have a byte in common. A partition is a part of
// its disk.
func Overlap(a identity.File, ofA Range, b identity.File, ofB Range) bool {
	if !a.Is(b) && nameOf(a) != nameOf(b) {
		return false
	}
	one, other := sectorsOf(a, ofA), sectorsOf(b, ofB)
	return one.start < other.start+other.length && other.start < one.start+one.length
}

// ofRings returns the position of the lock of the rings.
func (s sectors) ofRings() sectors { return sectors{s.start + objectSectors, s.length} }

// nameOf returns the name of an object's file, which contains the object's identity. A
// disk without a sequence number is identified by its number.
func nameOf(object identity.File) string {
	switch {
	case !object.IsDisk:
		return fmt.Sprintf("file-%s-%d-%d", object.Device, object.Inode, object.Birth)
	case object.Disk.Sequence != 0:
		return fmt.Sprintf("disk-%d", object.Disk.Sequence)
	}
	return "disk-" + object.Device
}

// lock locks or unlocks a range for an open file (F_OFD_SETLK in fcntl(2)). It returns an
// error that wraps EBUSY if another lock prevents that.
func lock(f *os.File, at sectors, mode Mode) error {
	l := at.flock(mode)
	err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &l)
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		return unix.EBUSY
	}
	return err
}

// isLocked reports whether a part of a range is locked through another open file.
func isLocked(f *os.File, at sectors) (bool, error) { return conflicts(f, at, Exclusive) }

// conflicts reports whether a lock through another open file allows no lock on a range.
func conflicts(f *os.File, at sectors, mode Mode) (bool, error) {
	l := at.flock(mode)
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &l); err != nil {
		return false, fmt.Errorf("look for locks: %w", err)
	}
	return Mode(l.Type) != unlocked, nil
}

func (s sectors) flock(mode Mode) unix.Flock_t {
	return unix.Flock_t{Type: int16(mode), Whence: io.SeekStart, Start: s.start, Len: s.length}
}
