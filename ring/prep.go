package ring

import "unsafe"

// Each Prep function fills an entry that GetSQE has just handed out, and
// leaves user_data and flags to the caller. A file is a descriptor, or with
// IOSQE_FIXED_FILE an index of the ring's file table.

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
// buffer index, at address addr: for a buffer of ours its address in memory,
// for a request's pages that a driver registered the offset in the request.
func (s *SQE) PrepReadFixed(fd int32, addr uint64, n uint32, off uint64, index uint16) {
	s.prep(IORING_OP_READ_FIXED, fd, addr, n, off)
	s.BufIndex = index
}

// PrepWriteFixed is PrepReadFixed for a write; rwFlags are RWF_ flags of
// pwritev2(2).
func (s *SQE) PrepWriteFixed(fd int32, addr uint64, n uint32, off uint64, index uint16, rwFlags uint32) {
	s.prep(IORING_OP_WRITE_FIXED, fd, addr, n, off)
	s.BufIndex = index
	s.OpFlags = rwFlags
}

// PrepFsync fills an fsync of a file; with IORING_FSYNC_DATASYNC an fdatasync.
// The kernel runs it on a worker thread.
func (s *SQE) PrepFsync(fd int32, fsyncFlags uint32) {
	s.prep(IORING_OP_FSYNC, fd, 0, 0, 0)
	s.OpFlags = fsyncFlags
}

// PrepFallocate fills a fallocate(2) of n bytes at byte off. The kernel runs
// it on a worker thread.
func (s *SQE) PrepFallocate(fd int32, mode uint32, off, n uint64) {
	s.prep(IORING_OP_FALLOCATE, fd, n, mode, off)
}

// PrepURingCmd fills a command to the driver of a file (Linux 5.19). Its
// payload goes where [SQE.Payload] or [SQE.Payload128] says.
func (s *SQE) PrepURingCmd(fd int32, cmdOp uint32) {
	s.prep(IORING_OP_URING_CMD, fd, 0, 0, uint64(cmdOp))
}

// Payload returns the 16 bytes that an entry carries for a driver. They are
// the entry's own last 16 bytes, and live as long as it does.
func (s *SQE) Payload() unsafe.Pointer {
	return unsafe.Pointer(&s.Addr3)
}

// Payload128 returns the 80 bytes that an entry of a ring with
// [Options.SQE128] carries for a driver. Behind the entry proper there are 64
// more bytes of the same slot, which array bounds in GetSQE.
func (s *SQE) Payload128() unsafe.Pointer {
	return unsafe.Pointer(&s.Addr3)
}

// PrepPollAdd fills a poll(2) of a file for events, once; its result is the
// events that came.
func (s *SQE) PrepPollAdd(fd int32, events uint32) {
	s.prep(IORING_OP_POLL_ADD, fd, 0, 0, 0)
	s.OpFlags = events
}

// PrepCancel fills the cancellation of an operation in flight, by its
// user_data. Its result is 0, ENOENT when there is none, or EALREADY when that
// one has begun: it is then interrupted where it can be. Both complete.
func (s *SQE) PrepCancel(userData uint64) {
	s.prep(IORING_OP_ASYNC_CANCEL, -1, userData, 0, 0)
}
