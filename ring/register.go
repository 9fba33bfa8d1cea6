package ring

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// register is io_uring_register(2) on this ring. what says in an error what was attempted.
func (r *Ring) register(what string, opcode uint32, arg unsafe.Pointer, n uint32) error {
	if err := ioURingRegister(r.fd, opcode, arg, n); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// RegisterRingFD makes enters find the ring by an index of the calling thread
// instead of its descriptor, which saves 45 to 60 ns for each enter (Linux
// 5.18). Use it only on a thread that ends with the ring: a thread has 16 such
// indexes, and each keeps its ring alive.
func (r *Ring) RegisterRingFD() error {
	up := ioUringRsrcUpdate{Offset: ^uint32(0), Data: uint64(r.fd)}
	if err := r.register("register ring fd", IORING_REGISTER_RING_FDS, unsafe.Pointer(&up), 1); err != nil {
		return err
	}
	r.enterFD = int(up.Offset)
	r.enterFlags |= IORING_ENTER_REGISTERED_RING
	return nil
}

func (r *Ring) unregisterRingFD() error {
	if r.enterFlags&IORING_ENTER_REGISTERED_RING == 0 {
		return nil
	}
	r.enterFlags &^= IORING_ENTER_REGISTERED_RING
	up := ioUringRsrcUpdate{Offset: uint32(r.enterFD)}
	return r.register("unregister ring fd", IORING_UNREGISTER_RING_FDS, unsafe.Pointer(&up), 1)
}

// RegisterFiles registers a table of descriptors for IOSQE_FIXED_FILE. -1
// leaves a slot empty.
func (r *Ring) RegisterFiles(fds []int32) error {
	if len(fds) == 0 {
		return fmt.Errorf("register files: %w", unix.EINVAL)
	}
	return r.register("register files", IORING_REGISTER_FILES, unsafe.Pointer(&fds[0]), uint32(len(fds)))
}

// UpdateFile puts a descriptor into a slot of the file table. -1 empties the
// slot (Linux 5.5).
func (r *Ring) UpdateFile(slot uint32, fd int32) error {
	// The kernel reads the descriptor through an address in the argument.
	var pinner runtime.Pinner
	defer pinner.Unpin()
	pinner.Pin(&fd)
	up := ioUringFilesUpdate{Offset: slot, Fds: uint64(uintptr(unsafe.Pointer(&fd)))}
	return r.register("update a registered file", IORING_REGISTER_FILES_UPDATE, unsafe.Pointer(&up), 1)
}

// UnregisterFiles removes the file table and the references that it holds.
func (r *Ring) UnregisterFiles() error {
	return r.register("unregister files", IORING_UNREGISTER_FILES, nil, 0)
}

// RegisterBuffers registers memory outside the Go heap for the _FIXED
// operations. The kernel pins the memory until UnregisterBuffers or Close.
func (r *Ring) RegisterBuffers(bufs [][]byte) error {
	iovecs := iovecsOf(bufs)
	return r.register("register buffers", IORING_REGISTER_BUFFERS, unsafe.Pointer(unsafe.SliceData(iovecs)), uint32(len(iovecs)))
}

// RegisterBuffersSparse registers a table of n empty slots, 1 to 16384, into
// which a driver can put the pages of its requests (Linux 5.19).
func (r *Ring) RegisterBuffersSparse(n uint32) error {
	reg := ioUringRsrcRegister{Nr: n, Flags: IORING_RSRC_REGISTER_SPARSE}
	return r.register("register buffer slots", IORING_REGISTER_BUFFERS2, unsafe.Pointer(&reg), uint32(unsafe.Sizeof(reg)))
}

// UpdateBuffers puts memory outside the Go heap into slots of the buffer table,
// beginning with slot first. nil empties a slot (Linux 5.13).
func (r *Ring) UpdateBuffers(first uint32, bufs [][]byte) error {
	iovecs := iovecsOf(bufs)
	// The kernel reads the iovecs through an address in the argument.
	var pinner runtime.Pinner
	defer pinner.Unpin()
	pinner.Pin(unsafe.SliceData(iovecs))
	up := ioUringRsrcUpdate2{Offset: first, Data: uint64(uintptr(unsafe.Pointer(unsafe.SliceData(iovecs)))), Nr: uint32(len(iovecs))}
	return r.register("update registered buffers", IORING_REGISTER_BUFFERS_UPDATE, unsafe.Pointer(&up), uint32(unsafe.Sizeof(up)))
}

func iovecsOf(bufs [][]byte) []unix.Iovec {
	iovecs := make([]unix.Iovec, len(bufs))
	for i, b := range bufs {
		iovecs[i].Base = unsafe.SliceData(b)
		iovecs[i].SetLen(len(b))
	}
	return iovecs
}

// UnregisterBuffers removes the buffer table.
func (r *Ring) UnregisterBuffers() error {
	return r.register("unregister buffers", IORING_UNREGISTER_BUFFERS, nil, 0)
}

// RegisterIOWQMaxWorkers limits the number of worker threads for the rings of
// the calling thread. Workers run operations that cannot complete at once.
// files is the limit for operations on files and disks, others for all other
// operations. The function returns the old limits. 0 leaves a limit unchanged.
// The kernel reduces a limit above RLIMIT_NPROC to RLIMIT_NPROC (Linux 5.15,
// io_uring_register(2)).
func (r *Ring) RegisterIOWQMaxWorkers(files, others uint32) (wereFiles, wereOthers uint32, err error) {
	counts := [2]uint32{files, others}
	err = r.register("limit workers", IORING_REGISTER_IOWQ_MAX_WORKERS, unsafe.Pointer(&counts), uint32(len(counts)))
	return counts[0], counts[1], err
}
