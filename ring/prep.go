package ring

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Each Prep function fills an entry that GetSQE has just returned, which is all
// zero. It sets the flag that belongs to the file. The caller adds other flags
// (|=) and sets user_data.

// rw fills the fields that reads and writes have in common.
func (s *SQE) rw(op uint8, f File, addr uint64, n uint32, off uint64, index uint16) {
	s.Opcode = op
	s.setFile(f)
	s.Addr = addr
	s.Len = n
	s.Off = off
	s.BufIndex = index
}

// PrepNop fills an entry that does nothing and completes with 0.
func (s *SQE) PrepNop() {
	s.Opcode = IORING_OP_NOP
	s.Fd = -1
}

// PrepReadFixed fills a read of n bytes at byte off of a file into registered
// buffer index. addr is the memory address for a buffer of the caller, and the
// offset in the request for pages of a request that a driver registered.
func (s *SQE) PrepReadFixed(f File, addr uint64, n uint32, off uint64, index uint16) {
	s.rw(IORING_OP_READ_FIXED, f, addr, n, off, index)
}

// PrepWriteFixed is PrepReadFixed for a write. rwFlags are RWF_ flags of
// pwritev2(2).
func (s *SQE) PrepWriteFixed(f File, addr uint64, n uint32, off uint64, index uint16, rwFlags uint32) {
	s.rw(IORING_OP_WRITE_FIXED, f, addr, n, off, index)
	s.OpFlags = rwFlags
}

// PrepRead is PrepReadFixed for memory that is not registered. addr is its address.
func (s *SQE) PrepRead(f File, addr uint64, n uint32, off uint64) {
	s.rw(IORING_OP_READ, f, addr, n, off, 0)
}

// PrepWrite is PrepRead for a write.
func (s *SQE) PrepWrite(f File, addr uint64, n uint32, off uint64) {
	s.rw(IORING_OP_WRITE, f, addr, n, off, 0)
}

// PrepWritev fills a write at byte off from pieces of memory that are not registered. The vectors
// too are outside the Go heap. The kernel reads them when it takes the entry.
func (s *SQE) PrepWritev(f File, vectors []unix.Iovec, off uint64) {
	s.rw(IORING_OP_WRITEV, f, address(vectors), uint32(len(vectors)), off, 0)
}

// PrepFsync fills an fsync of a file, or an fdatasync with
// IORING_FSYNC_DATASYNC. The kernel runs it on a worker thread.
func (s *SQE) PrepFsync(f File, fsyncFlags uint32) {
	s.Opcode = IORING_OP_FSYNC
	s.setFile(f)
	s.OpFlags = fsyncFlags
}

// PrepFallocate fills a fallocate(2) of n bytes at byte off. The kernel runs
// it on a worker thread.
func (s *SQE) PrepFallocate(f File, mode uint32, off, n uint64) {
	s.Opcode = IORING_OP_FALLOCATE
	s.setFile(f)
	s.Len = mode
	s.Off = off
	s.Addr = n
}

// PrepURingCmd fills a command to the driver of a file (Linux 5.19). Write its
// payload to [SQE.Payload] or [SQE.Payload128].
func (s *SQE) PrepURingCmd(f File, cmdOp uint32) {
	s.Opcode = IORING_OP_URING_CMD
	s.setFile(f)
	s.Off = uint64(cmdOp)
}

// Payload returns the 16 payload bytes of an entry. They are the entry's own
// last 16 bytes and are valid as long as the entry.
func (s *SQE) Payload() unsafe.Pointer {
	return unsafe.Pointer(&s.Addr3)
}

// Payload128 returns the 80 payload bytes of an entry in a ring with
// [Options.SQE128]. The last 64 bytes follow the SQE struct in the same slot,
// within the bounds that array checked for GetSQE.
func (s *SQE) Payload128() unsafe.Pointer {
	return unsafe.Pointer(&s.Addr3)
}

// PrepPollAdd fills one poll(2) of a file for events. Its result is the events
// that occurred.
func (s *SQE) PrepPollAdd(f File, events uint32) {
	s.Opcode = IORING_OP_POLL_ADD
	s.setFile(f)
	s.OpFlags = events
}

// PrepCancel fills the cancellation of an operation in flight, which its
// user_data selects. Its result is 0, ENOENT if there is no such operation, or
// EALREADY if the operation has begun. In the last case the kernel interrupts
// the operation if possible. Both entries complete.
func (s *SQE) PrepCancel(userData uint64) {
	s.Opcode = IORING_OP_ASYNC_CANCEL
	s.Fd = -1
	s.Addr = userData
}

// Address returns the address of memory outside the Go heap, for entries and for structs that a
// driver reads. Go does not keep memory alive for an address, nor change the address when it moves
// memory of its heap.
func Address(mem []byte) uint64 { return address(mem) }

func address[T any](list []T) uint64 { return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(list)))) }
