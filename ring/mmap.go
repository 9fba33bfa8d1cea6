package ring

import (
	"errors"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// This file maps the ring's memory. No other file of the package does pointer
// arithmetic. Every pointer made here points into a mapping that lives until
// Close, at an offset that the kernel gave. A slice expression checks the
// offset against the length of the mapping.

// mappings are the memory regions that a ring shares with the kernel.
type mappings struct {
	sqRing, cqRing, sqes []byte
}

// mmap maps the rings and the entries. io_uring_setup(2) describes their
// layout.
func (m *mappings) mmap(fd int, p *ioUringParams) error {
	sqSize := int(p.SqOff.Array) + int(p.SqEntries)*4
	if p.Flags&IORING_SETUP_NO_SQARRAY != 0 {
		sqSize = 0 // the CQ's mapping covers the header
	}
	cqSize := int(p.CqOff.Cqes) + int(p.CqEntries)*int(unsafe.Sizeof(CQE{}))
	sqeSize := int(p.SqEntries) * int(unsafe.Sizeof(SQE{}))
	if p.Flags&IORING_SETUP_SQE128 != 0 {
		sqeSize *= 2
	}
	if p.Features&IORING_FEAT_SINGLE_MMAP != 0 {
		sqSize = max(sqSize, cqSize)
	}
	var err error
	if m.sqRing, err = mmapShared(fd, IORING_OFF_SQ_RING, sqSize); err != nil {
		return err
	}
	m.cqRing = m.sqRing
	if p.Features&IORING_FEAT_SINGLE_MMAP == 0 {
		if m.cqRing, err = mmapShared(fd, IORING_OFF_CQ_RING, cqSize); err != nil {
			return err
		}
	}
	m.sqes, err = mmapShared(fd, IORING_OFF_SQES, sqeSize)
	return err
}

func mmapShared(fd int, offset int64, size int) ([]byte, error) {
	return unix.Mmap(fd, offset, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
}

// munmap unmaps all regions. A mapping keeps the ring alive in the kernel. So
// unmap all of them before you wait for a driver whose files the ring has.
func (m *mappings) munmap() error {
	var errs []error
	if len(m.cqRing) > 0 && &m.cqRing[0] != &m.sqRing[0] {
		errs = append(errs, unix.Munmap(m.cqRing))
	}
	for _, mem := range [][]byte{m.sqRing, m.sqes} {
		if len(mem) > 0 {
			errs = append(errs, unix.Munmap(mem))
		}
	}
	*m = mappings{}
	return errors.Join(errs...)
}

// word returns the 32-bit word at an offset of a mapping. The kernel aligns the
// words, and all accesses are atomic.
func word(mem []byte, offset uint32) *atomic.Uint32 {
	return (*atomic.Uint32)(unsafe.Pointer(&mem[offset : offset+4][0]))
}

// array returns n elements of type T at an offset of a mapping. T has no
// pointers, and the kernel aligns the arrays to a cache line.
func array[T any](mem []byte, offset, n uint32) []T {
	var t T
	size := uintptr(n) * unsafe.Sizeof(t)
	return unsafe.Slice((*T)(unsafe.Pointer(&mem[offset : uintptr(offset)+size][0])), n)
}
