// Kernel names stay verbatim in this file. The rest of the package has Go
// names.
//
// Source: include/uapi/linux/io_uring.h and linux/time_types.h of Linux 7.3.
// abi_test.go compares every constant, size and offset in this file with the
// output of a C compiler for those headers (testdata/abi.txt). The comment of a
// struct contains its C name. The C name of a field is its Go name in snake
// case, or its abi tag.

package ring

import "structs"

// SQE is struct io_uring_sqe of linux/io_uring.h, one submission: 64 bytes. In
// an SQE128 ring, 64 more bytes follow each SQE, and a URING_CMD payload starts
// at the offset of Addr3. A member of a union keeps the name given here for all
// opcodes.
type SQE struct {
	_           structs.HostLayout
	Opcode      uint8  // IORING_OP_*
	Flags       uint8  // IOSQE_*
	Ioprio      uint16 // I/O priority, or flags of some opcodes
	Fd          int32  // descriptor, or index with IOSQE_FIXED_FILE
	Off         uint64 // file offset in bytes; or addr2; or cmd_op in the low 32 bits
	Addr        uint64 // user address; or splice_off_in
	Len         uint32 // bytes, or number of vectors
	OpFlags     uint32 `abi:"rw_flags"` // or fsync_flags, timeout_flags, uring_cmd_flags, ...
	UserData    uint64 // the kernel copies it to CQE.UserData
	BufIndex    uint16 // registered buffer, or buf_group
	Personality uint16 // registered credentials, 0 for the caller's
	SpliceFdIn  int32  // or file_index, write_stream, optlen, ...
	Addr3       uint64 // or attr_ptr, optval; a command's payload starts here
	Pad2        uint64 `abi:"__pad2"` // or attr_type_mask
}

// CQE is struct io_uring_cqe of linux/io_uring.h, one completion: 16 bytes. It
// omits big_cqe, the further 16 bytes of a CQE32 ring.
type CQE struct {
	_        structs.HostLayout
	UserData uint64 // SQE.UserData of the request
	Res      int32  // result, or a negated errno
	Flags    uint32 // IORING_CQE_F_*
}

// ioSqringOffsets is struct io_sqring_offsets of linux/io_uring.h: where the
// parts of the submission ring are, in bytes from IORING_OFF_SQ_RING.
type ioSqringOffsets struct {
	_           structs.HostLayout
	Head        uint32
	Tail        uint32
	RingMask    uint32
	RingEntries uint32
	Flags       uint32
	Dropped     uint32
	Array       uint32
	Resv1       uint32
	UserAddr    uint64 // with IORING_SETUP_NO_MMAP: address of the caller's memory
}

// ioCqringOffsets is struct io_cqring_offsets of linux/io_uring.h: where the
// parts of the completion ring are, in bytes from IORING_OFF_CQ_RING.
type ioCqringOffsets struct {
	_           structs.HostLayout
	Head        uint32
	Tail        uint32
	RingMask    uint32
	RingEntries uint32
	Overflow    uint32
	Cqes        uint32
	Flags       uint32
	Resv1       uint32
	UserAddr    uint64 // with IORING_SETUP_NO_MMAP: address of the caller's memory
}

// ioUringParams is struct io_uring_params of linux/io_uring.h: read and
// written by io_uring_setup.
type ioUringParams struct {
	_            structs.HostLayout
	SqEntries    uint32 // entries granted, a power of two
	CqEntries    uint32 // entries wanted with IORING_SETUP_CQSIZE, then granted
	Flags        uint32 // IORING_SETUP_*
	SqThreadCPU  uint32
	SqThreadIdle uint32 // milliseconds
	Features     uint32 // IORING_FEAT_*
	WqFd         uint32
	Resv         [3]uint32
	SqOff        ioSqringOffsets
	CqOff        ioCqringOffsets
}

// ioUringProbeOp is struct io_uring_probe_op of linux/io_uring.h: whether the
// kernel has one opcode.
type ioUringProbeOp struct {
	_     structs.HostLayout
	Op    uint8
	Resv  uint8
	Flags uint16 // IO_URING_OP_*
	Resv2 uint32
}

// ioUringProbe is struct io_uring_probe of linux/io_uring.h without ops, the
// array of OpsLen ioUringProbeOp that follows it in memory.
type ioUringProbe struct {
	_      structs.HostLayout
	LastOp uint8 // highest opcode that the kernel has
	OpsLen uint8 // entries that follow
	Resv   uint16
	Resv2  [3]uint32
}

// ioUringRsrcRegister is struct io_uring_rsrc_register of linux/io_uring.h:
// the argument of IORING_REGISTER_FILES2 and IORING_REGISTER_BUFFERS2.
type ioUringRsrcRegister struct {
	_     structs.HostLayout
	Nr    uint32 // entries
	Flags uint32 // IORING_RSRC_REGISTER_SPARSE
	Resv2 uint64
	Data  uint64 // address of Nr int32 descriptors, or Nr iovecs; 0 when sparse
	Tags  uint64 // address of Nr uint64, or 0
}

// ioUringRsrcUpdate is struct io_uring_rsrc_update of linux/io_uring.h: one
// entry of IORING_REGISTER_RING_FDS and IORING_UNREGISTER_RING_FDS.
type ioUringRsrcUpdate struct {
	_      structs.HostLayout
	Offset uint32 // slot; ^0 lets the kernel choose, and return it here
	Resv   uint32
	Data   uint64 // the descriptor
}

// ioUringRsrcUpdate2 is struct io_uring_rsrc_update2 of linux/io_uring.h: the
// argument of IORING_REGISTER_FILES_UPDATE2 and IORING_REGISTER_BUFFERS_UPDATE.
type ioUringRsrcUpdate2 struct {
	_      structs.HostLayout
	Offset uint32 // first slot
	Resv   uint32
	Data   uint64 // address of Nr int32 descriptors, or Nr iovecs
	Tags   uint64 // address of Nr uint64, or 0
	Nr     uint32 // entries
	Resv2  uint32
}

// ioUringFilesUpdate is struct io_uring_files_update of linux/io_uring.h: the
// argument of IORING_REGISTER_FILES_UPDATE.
type ioUringFilesUpdate struct {
	_      structs.HostLayout
	Offset uint32 // first slot
	Resv   uint32
	Fds    uint64 // address of int32 descriptors
}

// ioUringBuf is struct io_uring_buf of linux/io_uring.h: one provided buffer.
// In a buffer ring, Resv of the first buffer is the ring's tail.
type ioUringBuf struct {
	_    structs.HostLayout
	Addr uint64
	Len  uint32 // bytes
	Bid  uint16 // buffer id
	Resv uint16
}

// ioUringBufReg is struct io_uring_buf_reg of linux/io_uring.h: the argument
// of IORING_REGISTER_PBUF_RING and IORING_UNREGISTER_PBUF_RING.
type ioUringBufReg struct {
	_           structs.HostLayout
	RingAddr    uint64 // address of the ring of ioUringBuf, page aligned
	RingEntries uint32 // a power of two
	Bgid        uint16 // buffer group id
	Flags       uint16 // IOU_PBUF_RING_*
	MinLeft     uint32 // bytes; with IOU_PBUF_RING_INC
	Resv        [5]uint32
}

// ioUringGeteventsArg is struct io_uring_getevents_arg of linux/io_uring.h:
// the argument of io_uring_enter with IORING_ENTER_EXT_ARG.
type ioUringGeteventsArg struct {
	_           structs.HostLayout
	Sigmask     uint64 // address, or 0
	SigmaskSz   uint32 // bytes
	MinWaitUsec uint32 // microseconds
	Ts          uint64 // address of a kernelTimespec, or 0
}

// ioUringRestriction is struct io_uring_restriction of linux/io_uring.h: one element of what
// IORING_REGISTER_RESTRICTIONS allows.
type ioUringRestriction struct {
	_          structs.HostLayout
	Opcode     uint16 // IORING_RESTRICTION_*
	RegisterOp uint8  // or sqe_op, sqe_flags
	Resv       uint8
	Resv2      [3]uint32
}

// ioUringTaskRestriction is struct io_uring_task_restriction of linux/io_uring.h without restrictions,
// the array of NrRes ioUringRestriction that follows it in memory.
type ioUringTaskRestriction struct {
	_     structs.HostLayout
	Flags uint16
	NrRes uint16
	Resv  [3]uint32
}

// kernelTimespec is struct __kernel_timespec of linux/time_types.h.
type kernelTimespec struct {
	_      structs.HostLayout
	TvSec  int64 // seconds
	TvNsec int64 // nanoseconds
}

// Opcodes of a submission: enum io_uring_op. IORING_OP_LAST is omitted, because
// its value differs between kernels.
const (
	IORING_OP_NOP = iota
	IORING_OP_READV
	IORING_OP_WRITEV
	IORING_OP_FSYNC
	IORING_OP_READ_FIXED
	IORING_OP_WRITE_FIXED
	IORING_OP_POLL_ADD
	IORING_OP_POLL_REMOVE
	IORING_OP_SYNC_FILE_RANGE
	IORING_OP_SENDMSG
	IORING_OP_RECVMSG
	IORING_OP_TIMEOUT
	IORING_OP_TIMEOUT_REMOVE
	IORING_OP_ACCEPT
	IORING_OP_ASYNC_CANCEL
	IORING_OP_LINK_TIMEOUT
	IORING_OP_CONNECT
	IORING_OP_FALLOCATE
	IORING_OP_OPENAT
	IORING_OP_CLOSE
	IORING_OP_FILES_UPDATE
	IORING_OP_STATX
	IORING_OP_READ
	IORING_OP_WRITE
	IORING_OP_FADVISE
	IORING_OP_MADVISE
	IORING_OP_SEND
	IORING_OP_RECV
	IORING_OP_OPENAT2
	IORING_OP_EPOLL_CTL
	IORING_OP_SPLICE
	IORING_OP_PROVIDE_BUFFERS
	IORING_OP_REMOVE_BUFFERS
	IORING_OP_TEE
	IORING_OP_SHUTDOWN
	IORING_OP_RENAMEAT
	IORING_OP_UNLINKAT
	IORING_OP_MKDIRAT
	IORING_OP_SYMLINKAT
	IORING_OP_LINKAT
	IORING_OP_MSG_RING
	IORING_OP_FSETXATTR
	IORING_OP_SETXATTR
	IORING_OP_FGETXATTR
	IORING_OP_GETXATTR
	IORING_OP_SOCKET
	IORING_OP_URING_CMD
	IORING_OP_SEND_ZC
	IORING_OP_SENDMSG_ZC
	IORING_OP_READ_MULTISHOT
	IORING_OP_WAITID
	IORING_OP_FUTEX_WAIT
	IORING_OP_FUTEX_WAKE
	IORING_OP_FUTEX_WAITV
	IORING_OP_FIXED_FD_INSTALL
	IORING_OP_FTRUNCATE
	IORING_OP_BIND
	IORING_OP_LISTEN
	IORING_OP_RECV_ZC
	IORING_OP_EPOLL_WAIT
	IORING_OP_READV_FIXED
	IORING_OP_WRITEV_FIXED
	IORING_OP_PIPE
	IORING_OP_NOP128
	IORING_OP_URING_CMD128
)

// Flags of a submission, SQE.Flags: enum io_uring_sqe_flags_bit.
const (
	IOSQE_FIXED_FILE       = 1 << 0
	IOSQE_IO_DRAIN         = 1 << 1
	IOSQE_IO_LINK          = 1 << 2
	IOSQE_IO_HARDLINK      = 1 << 3
	IOSQE_ASYNC            = 1 << 4
	IOSQE_BUFFER_SELECT    = 1 << 5
	IOSQE_CQE_SKIP_SUCCESS = 1 << 6
)

// Flags of io_uring_setup, ioUringParams.Flags.
const (
	IORING_SETUP_IOPOLL             = 1 << 0
	IORING_SETUP_SQPOLL             = 1 << 1
	IORING_SETUP_SQ_AFF             = 1 << 2
	IORING_SETUP_CQSIZE             = 1 << 3
	IORING_SETUP_CLAMP              = 1 << 4
	IORING_SETUP_ATTACH_WQ          = 1 << 5
	IORING_SETUP_R_DISABLED         = 1 << 6
	IORING_SETUP_SUBMIT_ALL         = 1 << 7
	IORING_SETUP_COOP_TASKRUN       = 1 << 8
	IORING_SETUP_TASKRUN_FLAG       = 1 << 9
	IORING_SETUP_SQE128             = 1 << 10
	IORING_SETUP_CQE32              = 1 << 11
	IORING_SETUP_SINGLE_ISSUER      = 1 << 12
	IORING_SETUP_DEFER_TASKRUN      = 1 << 13
	IORING_SETUP_NO_MMAP            = 1 << 14
	IORING_SETUP_REGISTERED_FD_ONLY = 1 << 15
	IORING_SETUP_NO_SQARRAY         = 1 << 16
	IORING_SETUP_HYBRID_IOPOLL      = 1 << 17
	IORING_SETUP_CQE_MIXED          = 1 << 18
	IORING_SETUP_SQE_MIXED          = 1 << 19
	IORING_SETUP_SQ_REWIND          = 1 << 20
)

// Features that io_uring_setup reports, ioUringParams.Features.
const (
	IORING_FEAT_SINGLE_MMAP     = 1 << 0
	IORING_FEAT_NODROP          = 1 << 1
	IORING_FEAT_SUBMIT_STABLE   = 1 << 2
	IORING_FEAT_RW_CUR_POS      = 1 << 3
	IORING_FEAT_CUR_PERSONALITY = 1 << 4
	IORING_FEAT_FAST_POLL       = 1 << 5
	IORING_FEAT_POLL_32BITS     = 1 << 6
	IORING_FEAT_SQPOLL_NONFIXED = 1 << 7
	IORING_FEAT_EXT_ARG         = 1 << 8
	IORING_FEAT_NATIVE_WORKERS  = 1 << 9
	IORING_FEAT_RSRC_TAGS       = 1 << 10
	IORING_FEAT_CQE_SKIP        = 1 << 11
	IORING_FEAT_LINKED_FILE     = 1 << 12
	IORING_FEAT_REG_REG_RING    = 1 << 13
	IORING_FEAT_RECVSEND_BUNDLE = 1 << 14
	IORING_FEAT_MIN_TIMEOUT     = 1 << 15
	IORING_FEAT_RW_ATTR         = 1 << 16
	IORING_FEAT_NO_IOWAIT       = 1 << 17
)

// Flags of io_uring_enter.
const (
	IORING_ENTER_GETEVENTS       = 1 << 0
	IORING_ENTER_SQ_WAKEUP       = 1 << 1
	IORING_ENTER_SQ_WAIT         = 1 << 2
	IORING_ENTER_EXT_ARG         = 1 << 3
	IORING_ENTER_REGISTERED_RING = 1 << 4
	IORING_ENTER_ABS_TIMER       = 1 << 5
	IORING_ENTER_EXT_ARG_REG     = 1 << 6
	IORING_ENTER_NO_IOWAIT       = 1 << 7
)

// Offsets for mmap of a ring, in bytes.
const (
	IORING_OFF_SQ_RING    = 0
	IORING_OFF_CQ_RING    = 0x8000000
	IORING_OFF_SQES       = 0x10000000
	IORING_OFF_PBUF_RING  = 0x80000000
	IORING_OFF_PBUF_SHIFT = 16
	IORING_OFF_MMAP_MASK  = 0xf8000000
)

// Flags in the rings' memory: of the submission ring, written by the kernel,
// and of the completion ring, written by the caller.
const (
	IORING_SQ_NEED_WAKEUP      = 1 << 0
	IORING_SQ_CQ_OVERFLOW      = 1 << 1
	IORING_SQ_TASKRUN          = 1 << 2
	IORING_CQ_EVENTFD_DISABLED = 1 << 0
)

// Flags of a completion, CQE.Flags; the bits from IORING_CQE_BUFFER_SHIFT up
// are a buffer id.
const (
	IORING_CQE_F_BUFFER        = 1 << 0
	IORING_CQE_F_MORE          = 1 << 1
	IORING_CQE_F_SOCK_NONEMPTY = 1 << 2
	IORING_CQE_F_NOTIF         = 1 << 3
	IORING_CQE_F_BUF_MORE      = 1 << 4
	IORING_CQE_F_SKIP          = 1 << 5
	IORING_CQE_F_32            = 1 << 15
	IORING_CQE_BUFFER_SHIFT    = 16
)

// Opcodes of io_uring_register: enum io_uring_register_op.
const (
	IORING_REGISTER_BUFFERS          = 0
	IORING_UNREGISTER_BUFFERS        = 1
	IORING_REGISTER_FILES            = 2
	IORING_UNREGISTER_FILES          = 3
	IORING_REGISTER_EVENTFD          = 4
	IORING_UNREGISTER_EVENTFD        = 5
	IORING_REGISTER_FILES_UPDATE     = 6
	IORING_REGISTER_EVENTFD_ASYNC    = 7
	IORING_REGISTER_PROBE            = 8
	IORING_REGISTER_PERSONALITY      = 9
	IORING_UNREGISTER_PERSONALITY    = 10
	IORING_REGISTER_RESTRICTIONS     = 11
	IORING_REGISTER_ENABLE_RINGS     = 12
	IORING_REGISTER_FILES2           = 13
	IORING_REGISTER_FILES_UPDATE2    = 14
	IORING_REGISTER_BUFFERS2         = 15
	IORING_REGISTER_BUFFERS_UPDATE   = 16
	IORING_REGISTER_IOWQ_AFF         = 17
	IORING_UNREGISTER_IOWQ_AFF       = 18
	IORING_REGISTER_IOWQ_MAX_WORKERS = 19
	IORING_REGISTER_RING_FDS         = 20
	IORING_UNREGISTER_RING_FDS       = 21
	IORING_REGISTER_PBUF_RING        = 22
	IORING_UNREGISTER_PBUF_RING      = 23
	IORING_REGISTER_SYNC_CANCEL      = 24
	IORING_REGISTER_FILE_ALLOC_RANGE = 25
	IORING_REGISTER_PBUF_STATUS      = 26
	IORING_REGISTER_NAPI             = 27
	IORING_UNREGISTER_NAPI           = 28
	IORING_REGISTER_CLOCK            = 29
	IORING_REGISTER_CLONE_BUFFERS    = 30
	IORING_REGISTER_SEND_MSG_RING    = 31
	IORING_REGISTER_ZCRX_IFQ         = 32
	IORING_REGISTER_RESIZE_RINGS     = 33
	IORING_REGISTER_MEM_REGION       = 34
	IORING_REGISTER_QUERY            = 35
	IORING_REGISTER_ZCRX_CTRL        = 36
	IORING_REGISTER_BPF_FILTER       = 37

	// Added to an opcode: the descriptor is a registered ring index.
	IORING_REGISTER_USE_REGISTERED_RING = 1 << 31
)

// What an ioUringRestriction allows: enum io_uring_register_restriction_op.
const (
	IORING_RESTRICTION_REGISTER_OP        = 0
	IORING_RESTRICTION_SQE_OP             = 1
	IORING_RESTRICTION_SQE_FLAGS_ALLOWED  = 2
	IORING_RESTRICTION_SQE_FLAGS_REQUIRED = 3
)

// Values in the arguments of io_uring_register and of opcodes that fill a
// slot of the file table.
const (
	IORING_RSRC_REGISTER_SPARSE = 1 << 0    // ioUringRsrcRegister.Flags
	IORING_REGISTER_FILES_SKIP  = -2        // descriptor: leave this slot alone
	IORING_FILE_INDEX_ALLOC     = 1<<32 - 1 // SQE.SpliceFdIn, so -1: any free slot
	IO_URING_OP_SUPPORTED       = 1 << 0    // ioUringProbeOp.Flags
	IOU_PBUF_RING_MMAP          = 1         // ioUringBufReg.Flags
	IOU_PBUF_RING_INC           = 2
)

// Flags of some opcodes, SQE.OpFlags.
const (
	IORING_URING_CMD_FIXED     = 1 << 0 // BufIndex is a registered buffer
	IORING_URING_CMD_MULTISHOT = 1 << 1 // BufIndex is a buffer group
	IORING_URING_CMD_MASK      = IORING_URING_CMD_FIXED | IORING_URING_CMD_MULTISHOT

	IORING_FSYNC_DATASYNC = 1 << 0

	IORING_TIMEOUT_ABS           = 1 << 0
	IORING_TIMEOUT_UPDATE        = 1 << 1
	IORING_TIMEOUT_BOOTTIME      = 1 << 2
	IORING_TIMEOUT_REALTIME      = 1 << 3
	IORING_LINK_TIMEOUT_UPDATE   = 1 << 4
	IORING_TIMEOUT_ETIME_SUCCESS = 1 << 5
	IORING_TIMEOUT_MULTISHOT     = 1 << 6
	IORING_TIMEOUT_IMMEDIATE_ARG = 1 << 7 // Addr is nanoseconds, not an address
	IORING_TIMEOUT_CLOCK_MASK    = IORING_TIMEOUT_BOOTTIME | IORING_TIMEOUT_REALTIME
	IORING_TIMEOUT_UPDATE_MASK   = IORING_TIMEOUT_UPDATE | IORING_LINK_TIMEOUT_UPDATE

	IORING_ASYNC_CANCEL_ALL      = 1 << 0
	IORING_ASYNC_CANCEL_FD       = 1 << 1
	IORING_ASYNC_CANCEL_ANY      = 1 << 2
	IORING_ASYNC_CANCEL_FD_FIXED = 1 << 3
	IORING_ASYNC_CANCEL_USERDATA = 1 << 4
	IORING_ASYNC_CANCEL_OP       = 1 << 5
)
