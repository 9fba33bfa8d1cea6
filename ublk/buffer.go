package ublk

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ring"
	"github.com/ublk-loop/ublk-loop/ublk/uapi"
)

// This file decides where a request's bytes live. Its unsafe code passes addresses of
// mapped memory to the kernel. Go neither moves nor frees that memory, and arena outlives
// every command that has such an address.

// BufferMode says how a handler reaches the bytes of a request.
type BufferMode int

// The buffer modes. In the zero-copy modes only the kernel reaches the bytes, for
// [Request.Forward] or an entry of the ring. Handlers of these modes are Completers.
const (
	// BufferCopy makes the driver copy between the request and a buffer of the server.
	// Every kernel has this mode. Only in this mode does a handler see the bytes
	// ([Request.Data]).
	BufferCopy BufferMode = iota
	// BufferRegister is zero copy: a command puts the request's own pages in the
	// ring's buffer table before the handler is called (Linux 6.15).
	BufferRegister
	// BufferAutoRegister is zero copy: the driver puts the pages there when it delivers
	// the request (Linux 6.16). If the driver has no memory for that, a command does it.
	BufferAutoRegister
	// BufferFastest is the fastest mode that the kernel offers: one of the zero-copy
	// modes if it has them.
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

// features returns the features that a device of this mode requests. Automatic
// registration includes registration by command, as its fallback.
func (m BufferMode) features() Features {
	switch m {
	case BufferRegister:
		return uapi.UBLK_F_SUPPORT_ZERO_COPY
	case BufferAutoRegister:
		return uapi.UBLK_F_SUPPORT_ZERO_COPY | uapi.UBLK_F_AUTO_BUF_REG
	}
	return 0
}

// modeOf returns the mode that a device's features select.
func modeOf(f Features) BufferMode {
	switch {
	case f.Has(BufferAutoRegister.features()):
		return BufferAutoRegister
	case f.Has(BufferRegister.features()):
		return BufferRegister
	}
	return BufferCopy
}

// bufferSlots returns how many slots of a ring's buffer table a queue has. In copy mode a
// tag has one slot. In the zero-copy modes a tag has one slot for the driver, and one for
// the fallback, which is depth slots further on.
func bufferSlots(mode BufferMode, depth int) int {
	if mode.ZeroCopy() {
		return 2 * depth
	}
	return depth
}

// buffers are a queue's slots of its ring's buffer table, and in copy mode the memory in
// these slots.
type buffers struct {
	first uint16 // the slot of tag 0
	arena []byte // copy mode: depth buffers of size bytes, page-aligned
	size  int
}

// newBuffers makes all buffers that a queue in a slot of its thread will need. In copy mode
// all their pages exist then, in the memory near the given CPUs.
func newBuffers(mode BufferMode, slot, depth, size int, cpus cpuMask) (*buffers, error) {
	b := &buffers{first: uint16(slot * bufferSlots(mode, depth)), size: size}
	if mode.ZeroCopy() {
		return b, nil
	}
	var err error
	b.arena, err = unix.Mmap(-1, 0, depth*size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return nil, fmt.Errorf("map %d buffers of %d bytes: %w", depth, size, err)
	}
	// A buffer of fewer pages makes a shorter list for the kernel to work through.
	// Without huge pages the buffers work as well, so the error does not matter.
	_ = unix.Madvise(b.arena, unix.MADV_HUGEPAGE)
	if err := b.populate(cpus); err != nil {
		b.free()
		return nil, fmt.Errorf("map %d buffers of %d bytes: %w", depth, size, err)
	}
	return b, nil
}

// populate makes the pages of the buffers. It takes long, so the queue's thread must not do
// it, because it serves other queues too. The kernel takes pages from the memory near the
// thread that needs them first, so another thread on the queue's CPUs does it.
func (b *buffers) populate(cpus cpuMask) error {
	populated := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked, so the thread ends with the goroutine
		err := cpus.pin()
		if err == nil {
			err = unix.Madvise(b.arena, unix.MADV_POPULATE_WRITE)
		}
		populated <- err
	}()
	return <-populated
}

// registerBytes is the number of bytes of buffers that a thread registers at a time. Between
// two of these steps it serves its queues.
const registerBytes = 1 << 20

// register puts the buffers into the ring's table. The kernel pins them. do calls a function
// on the ring's thread.
func (b *buffers) register(r *ring.Ring, do func(func() error) error) error {
	return b.update(r, do, b.of)
}

// unregister removes the buffers from the ring's table.
func (b *buffers) unregister(r *ring.Ring, do func(func() error) error) error {
	return b.update(r, do, func(uint16) []byte { return nil })
}

// update puts an element into the slot of each tag, in steps of registerBytes.
func (b *buffers) update(r *ring.Ring, do func(func() error) error, of func(tag uint16) []byte) error {
	depth, step := len(b.arena)/b.size, max(registerBytes/b.size, 1)
	for tag := 0; tag < depth; tag += step {
		list := make([][]byte, min(step, depth-tag))
		for i := range list {
			list[i] = of(uint16(tag + i))
		}
		if err := do(func() error { return r.UpdateBuffers(uint32(b.first)+uint32(tag), list) }); err != nil {
			return err
		}
	}
	return nil
}

// of returns a tag's buffer, nil in the zero-copy modes.
func (b *buffers) of(tag uint16) []byte {
	if b.arena == nil {
		return nil
	}
	start := int(tag) * b.size
	return b.arena[start : start+b.size : start+b.size]
}

// address returns the address of a tag's buffer, 0 in the zero-copy modes.
func (b *buffers) address(tag uint16) uint64 {
	if b.arena == nil {
		return 0
	}
	return ring.Address(b.arena[int(tag)*b.size:])
}

func (b *buffers) free() {
	if b.arena != nil {
		_ = unix.Munmap(b.arena)
		b.arena = nil
	}
}

// descriptors returns a queue's mapping of /dev/ublkcN as I/O descriptors.
func descriptors(mem []byte, depth int) []uapi.IODesc {
	return unsafe.Slice((*uapi.IODesc)(unsafe.Pointer(&mem[0])), depth)
}

// descriptorBytes returns the length of a queue's mapping. For the driver's largest depth
// it is also the distance between the mappings of two queues.
func descriptorBytes(depth int) int {
	page := unix.Getpagesize()
	return (depth*int(unsafe.Sizeof(uapi.IODesc{})) + page - 1) / page * page
}
