package ring

import "unsafe"

// Each Prep function fills an entry that GetSQE has just returned. The caller
// sets user_data and flags. A file is a descriptor, or with IOSQE_FIXED_FILE an
// index into the ring's file table.

func (s *SQE) prep(op uint8, fd int32, addr uint64, n uint32, off uint64) {
	s.Opcode = op
	s.Fd = fd
	s.Addr = addr
	s.Len = n
	s.Off = off
}

// PrepNop fills an entry that does nothing and completes with 0.
func (s *SQE) PrepNop() {
	s.prep(IORING_OP_NOP, -1, 0, 0, 0)
}

// PrepReadFixed fills a read of n bytes at byte off of a file into registered
// buffer index. addr is the memory address for a buffer of the caller, and the
// offset in the request for pages of a request that a driver registered.
func (s *SQE) PrepReadFixed(fd int32, addr uint64, n uint32, off uint64, index uint16) {
	s.prep(IORING_OP_READ_FIXED, fd, addr, n, off)
	s.BufIndex = index
}

// PrepWriteFixed is PrepReadFixed for a write. rwFlags are RWF_ flags of
// pwritev2(2).
func (s *SQE) PrepWriteFixed(fd int32, addr uint64, n uint32, off uint64, index uint16, rwFlags uint32) {
	s.prep(IORING_OP_WRITE_FIXED, fd, addr, n, off)
	s.BufIndex = index
	s.OpFlags = rwFlags
}

// PrepFsync fills an fsync of a file, or an fdatasync with
// IORING_FSYNC_DATASYNC. The kernel runs it on a worker thread.
func (s *SQE) PrepFsync(fd int32, fsyncFlags uint32) {
	s.prep(IORING_OP_FSYNC, fd, 0, 0, 0)
	s.OpFlags = fsyncFlags
}

// PrepFallocate fills a fallocate(2) of n bytes at byte off. The kernel runs
// it on a worker thread.
func (s *SQE) PrepFallocate(fd int32, mode uint32, off, n uint64) {
	s.prep(IORING_OP_FALLOCATE, fd, n, mode, off)
}

// PrepURingCmd fills a command to the driver of a file (Linux 5.19). Write its
// payload to [SQE.Payload] or [SQE.Payload128].
func (s *SQE) PrepURingCmd(fd int32, cmdOp uint32) {
	s.prep(IORING_OP_URING_CMD, fd, 0, 0, uint64(cmdOp))
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
func (s *SQE) PrepPollAdd(fd int32, events uint32) {
	s.prep(IORING_OP_POLL_ADD, fd, 0, 0, 0)
	s.OpFlags = events
}

// PrepCancel fills the cancellation of an operation in flight, which its
// user_data selects. Its result is 0, ENOENT if there is no such operation, or
// EALREADY if the operation has begun. In the last case the kernel interrupts
// the operation if possible. Both entries complete.
func (s *SQE) PrepCancel(userData uint64) {
	s.prep(IORING_OP_ASYNC_CANCEL, -1, userData, 0, 0)
}
