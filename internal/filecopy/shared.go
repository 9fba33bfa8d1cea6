package filecopy

import (
	"cmp"
	"fmt"
	"math"
	"os"
	"slices"
	"structs"
	"unsafe"

	"golang.org/x/sys/unix"
)

// These are FS_IOC_FIEMAP, FIEMAP_EXTENT_LAST and FIEMAP_EXTENT_SHARED of
// linux/fiemap.h and linux/fs.h.
const (
	fsIocFiemap        = 0xC020660B
	fiemapExtentLast   = 0x1
	fiemapExtentShared = 0x2000
)

// fiemapExtents is the number of extents of a file that one call gets.
const fiemapExtents = 256

// fiemap is struct fiemap, with its extents.
type fiemap struct {
	_       structs.HostLayout
	start   uint64
	length  uint64
	flags   uint32
	mapped  uint32 // number of extents in the answer
	count   uint32 // number of extents that fit
	_       uint32
	extents [fiemapExtents]fiemapExtent
}

// fiemapExtent is struct fiemap_extent.
type fiemapExtent struct {
	_        structs.HostLayout
	logical  uint64
	physical uint64
	length   uint64
	_        [2]uint64
	flags    uint32
	_        [3]uint32
}

// SharedBytes returns the number of a file's bytes whose blocks other files share. It
// returns 0 if the file system cannot share blocks or does not tell.
func SharedBytes(f *os.File) (int64, error) {
	var shared int64
	err := EachShared(f, func(e Extent) { shared += e.Length })
	return shared, err
}

// Extent is a part of a disk, in bytes.
type Extent struct{ Start, Length int64 }

// EachShared calls a function for each part of a file's blocks that other files share. It calls it for none
// if the file system cannot share blocks or does not tell.
func EachShared(f *os.File, each func(Extent)) error {
	m := &fiemap{count: fiemapExtents}
	for {
		m.length, m.mapped = math.MaxUint64-m.start, 0
		// The kernel writes at most count extents behind the fields, into m, which does not move
		// during the call (pattern 4 of unsafe.Pointer).
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), fsIocFiemap, uintptr(unsafe.Pointer(m)))
		switch {
		case errno == unix.EINTR:
			continue
		case IsUnsupported(errno):
			return nil
		case errno != 0:
			return fmt.Errorf("map the blocks of %s: %w", f.Name(), errno)
		case m.mapped == 0:
			return nil
		}
		for _, e := range m.extents[:m.mapped] {
			if e.flags&fiemapExtentShared != 0 {
				each(Extent{int64(e.physical), int64(e.length)})
			}
		}
		last := &m.extents[m.mapped-1]
		if last.flags&fiemapExtentLast != 0 {
			return nil
		}
		m.start = last.logical + last.length
	}
}

// Doubles counts the bytes that extents have more than once. Its memory does not grow with the number of
// files that share a part of a disk. The zero value has no extents.
type Doubles struct {
	extents []Extent // the first union do not overlap or touch, and are sorted
	union   int
	bytes   int64
}

// unsorted is the least number of extents that are added before they are sorted.
const unsorted = 4096

// Add adds an extent.
func (d *Doubles) Add(e Extent) {
	d.extents = append(d.extents, e)
	if len(d.extents) >= 2*d.union+unsorted {
		d.merge()
	}
}

// Bytes returns how many bytes the extents have more than once.
func (d *Doubles) Bytes() int64 {
	d.merge()
	return d.bytes
}

// merge makes one extent of those that overlap or touch.
func (d *Doubles) merge() {
	slices.SortFunc(d.extents, func(a, b Extent) int { return cmp.Compare(a.Start, b.Start) })
	merged := d.extents[:0]
	for _, e := range d.extents {
		if len(merged) == 0 || merged[len(merged)-1].end() < e.Start {
			merged = append(merged, e)
			continue
		}
		last := &merged[len(merged)-1]
		d.bytes += min(last.end()-e.Start, e.Length)
		last.Length = max(last.end(), e.end()) - last.Start
	}
	d.extents, d.union = merged, len(merged)
}

func (e *Extent) end() int64 { return e.Start + e.Length }
