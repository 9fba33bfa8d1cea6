package ublk

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ring"
	"github.com/ublk-loop/ublk-loop/ublk/uapi"
)

// This file decides where a request's bytes live. Its unsafe code turns mapped
// memory, which Go neither moves nor frees, into the addresses that the kernel
// is given; arena outlives every command that names them.

// BufferMode says how a handler reaches the bytes of a request.
type BufferMode int

// The buffer modes. In the zero-copy modes only the kernel reaches the bytes, by
// [Request.Forward] or an entry of the ring: their handlers are Completers.
const (
	// BufferCopy: the driver copies between the request and a buffer of ours.
	// Every kernel has it, and it is the only mode in which a handler sees the
	// bytes ([Request.Data]).
	BufferCopy BufferMode = iota
	// BufferRegister is zero copy: a command puts the request's own pages in the
	// ring's buffer table before the handler is called (Linux 6.15).
	BufferRegister
	// BufferAutoRegister is zero copy: the driver puts the pages there as it
	// delivers the request. If it has no memory for that, a command does
	// (Linux 6.16).
	BufferAutoRegister
	// BufferFastest is the fastest mode that the kernel offers, zero copy
	// if it can.
	BufferFastest
)

// String returns the mode's name.
func (m BufferMode) String() string {
	switch m {
	case BufferFastest:
		return "fastest"
	case BufferCopy:
		return "copy"
	case BufferRegister:
		return "register"
	case BufferAutoRegister:
		return "auto-register"
	}
	return fmt.Sprintf("mode %d", int(m))
}

// ZeroCopy reports whether requests keep their own pages.
func (m BufferMode) ZeroCopy() bool { return m == BufferRegister || m == BufferAutoRegister }

// features returns what a device of this mode asks the driver for. Registering
// automatically includes registering by command, as the fallback.
func (m BufferMode) features() Features {
	switch m {
	case BufferRegister:
		return uapi.UBLK_F_SUPPORT_ZERO_COPY
	case BufferAutoRegister:
		return uapi.UBLK_F_SUPPORT_ZERO_COPY | uapi.UBLK_F_AUTO_BUF_REG
	}
	return 0
}

// modeOf returns the mode that a device's features stand for.
func modeOf(f Features) BufferMode {
	switch {
	case f.Has(BufferAutoRegister.features()):
		return BufferAutoRegister
	case f.Has(BufferRegister.features()):
		return BufferRegister
	}
	return BufferCopy
}

// bufferSlots returns how many slots of a ring's buffer table a queue has: in
// the zero-copy modes one of each tag for the driver and one for the fallback, a
// depth further on; in copy mode one of each tag.
func bufferSlots(mode BufferMode, depth int) int {
	if mode.ZeroCopy() {
		return 2 * depth
	}
	return depth
}

// buffers are a queue's buffers: slots of its ring's table, and in copy mode
// what is in them.
type buffers struct {
	first uint16 // slot, that of tag 0
	arena []byte // copy mode: depth buffers of size bytes, page-aligned
	size  int
}

// newBuffers makes the buffers of a queue in a slot of its thread and registers
// them with its ring, all that it will ever need: in copy mode the kernel pins
// them.
func newBuffers(r *ring.Ring, mode BufferMode, slot, depth, size int) (*buffers, error) {
	b := &buffers{first: uint16(slot * bufferSlots(mode, depth)), size: size}
	if mode.ZeroCopy() {
		return b, nil
	}
	var err error
	b.arena, err = unix.Mmap(-1, 0, depth*size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return nil, fmt.Errorf("map %d buffers of %d bytes: %w", depth, size, err)
	}
	// The fewer pages a buffer is made of, the shorter is the list of what the
	// kernel reads and writes. Where there are no huge pages it does without.
	_ = unix.Madvise(b.arena, unix.MADV_HUGEPAGE)
	list := make([][]byte, depth)
	for tag := range list {
		list[tag] = b.of(uint16(tag))
	}
	if err := r.UpdateBuffers(uint32(b.first), list); err != nil {
		b.free()
		return nil, err
	}
	return b, nil
}

// unregister takes the buffers out of the ring's table.
func (b *buffers) unregister(r *ring.Ring) {
	if b.arena != nil {
		_ = r.UpdateBuffers(uint32(b.first), make([][]byte, len(b.arena)/b.size))
	}
}

// of returns a tag's own buffer, nil in the zero-copy modes.
func (b *buffers) of(tag uint16) []byte {
	if b.arena == nil {
		return nil
	}
	start := int(tag) * b.size
	return b.arena[start : start+b.size : start+b.size]
}

// address returns where a tag's own buffer is, 0 in the zero-copy modes.
func (b *buffers) address(tag uint16) uint64 {
	if b.arena == nil {
		return 0
	}
	return uint64(uintptr(unsafe.Pointer(&b.arena[int(tag)*b.size])))
}

func (b *buffers) free() {
	if b.arena != nil {
		_ = unix.Munmap(b.arena)
		b.arena = nil
	}
}

// descriptors views a queue's mapping of /dev/ublkcN as its I/O descriptors.
func descriptors(mem []byte, depth int) []uapi.IODesc {
	return unsafe.Slice((*uapi.IODesc)(unsafe.Pointer(&mem[0])), depth)
}

// descriptorBytes is the length of a queue's mapping, and its distance from
// that of the queue before it when depth is the driver's largest.
func descriptorBytes(depth int) int {
	page := unix.Getpagesize()
	return (depth*int(unsafe.Sizeof(uapi.IODesc{})) + page - 1) / page * page
}
