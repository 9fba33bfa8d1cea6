// Package uapi has the structures, constants and command numbers of the ublk
// driver, under the kernel's names. Package ublk has Go names for what a server
// needs; this package is for feature bits that have none there, and for tools.
//
// Source: include/uapi/linux/ublk_cmd.h of Linux 7.3, and the _IOC encoding of
// asm-generic/ioctl.h. abi_test.go compares every constant, command number,
// size and offset here with the output of a C compiler for those headers
// (testdata/abi.txt). The comment of a struct has its C name. The C name of a
// field is its Go name in snake case, or its abi tag.
//
// A sector is 512 bytes everywhere, whatever the device's logical block size.
package uapi

import (
	"reflect"
	"structs"
)

// The parts of a command number.
const (
	_IOC_NRSHIFT   = 0
	_IOC_TYPESHIFT = 8
	_IOC_SIZESHIFT = 16
	_IOC_DIRSHIFT  = 30
	_IOC_WRITE     = 1
	_IOC_READ      = 2
)

// ioc is C's _IOC: the number of command nr of the family typ with the
// argument T.
func ioc[T any](dir, typ, nr uint32) uint32 {
	size := uint32(reflect.TypeFor[T]().Size())
	return dir<<_IOC_DIRSHIFT | size<<_IOC_SIZESHIFT | typ<<_IOC_TYPESHIFT | nr<<_IOC_NRSHIFT
}

// ior is C's _IOR: a command that reads a T from the kernel.
func ior[T any](typ, nr uint32) uint32 { return ioc[T](_IOC_READ, typ, nr) }

// iowr is C's _IOWR: a command that gives the kernel a T and gets it back.
func iowr[T any](typ, nr uint32) uint32 { return ioc[T](_IOC_READ|_IOC_WRITE, typ, nr) }

// Control commands, sent to /dev/ublk-control with a CtrlCmd.
var (
	UBLK_U_CMD_GET_QUEUE_AFFINITY  = ior[CtrlCmd]('u', 0x01)
	UBLK_U_CMD_GET_DEV_INFO        = ior[CtrlCmd]('u', 0x02)
	UBLK_U_CMD_ADD_DEV             = iowr[CtrlCmd]('u', 0x04)
	UBLK_U_CMD_DEL_DEV             = iowr[CtrlCmd]('u', 0x05)
	UBLK_U_CMD_START_DEV           = iowr[CtrlCmd]('u', 0x06)
	UBLK_U_CMD_STOP_DEV            = iowr[CtrlCmd]('u', 0x07)
	UBLK_U_CMD_SET_PARAMS          = iowr[CtrlCmd]('u', 0x08)
	UBLK_U_CMD_GET_PARAMS          = ior[CtrlCmd]('u', 0x09)
	UBLK_U_CMD_START_USER_RECOVERY = iowr[CtrlCmd]('u', 0x10)
	UBLK_U_CMD_END_USER_RECOVERY   = iowr[CtrlCmd]('u', 0x11)
	UBLK_U_CMD_GET_DEV_INFO2       = ior[CtrlCmd]('u', 0x12)
	UBLK_U_CMD_GET_FEATURES        = ior[CtrlCmd]('u', 0x13)
	UBLK_U_CMD_DEL_DEV_ASYNC       = ior[CtrlCmd]('u', 0x14)
	UBLK_U_CMD_UPDATE_SIZE         = iowr[CtrlCmd]('u', 0x15)
	UBLK_U_CMD_QUIESCE_DEV         = iowr[CtrlCmd]('u', 0x16)
	UBLK_U_CMD_TRY_STOP_DEV        = iowr[CtrlCmd]('u', 0x17)
	UBLK_U_CMD_REG_BUF             = iowr[CtrlCmd]('u', 0x18)
	UBLK_U_CMD_UNREG_BUF           = iowr[CtrlCmd]('u', 0x19)
)

// I/O commands, sent to /dev/ublkcN: those for one tag with a IOCmd,
// the batch commands (…_IO_CMDS) with a BatchIO.
var (
	UBLK_U_IO_FETCH_REQ            = iowr[IOCmd]('u', 0x20)
	UBLK_U_IO_COMMIT_AND_FETCH_REQ = iowr[IOCmd]('u', 0x21)
	UBLK_U_IO_NEED_GET_DATA        = iowr[IOCmd]('u', 0x22)
	UBLK_U_IO_REGISTER_IO_BUF      = iowr[IOCmd]('u', 0x23)
	UBLK_U_IO_UNREGISTER_IO_BUF    = iowr[IOCmd]('u', 0x24)
	UBLK_U_IO_PREP_IO_CMDS         = iowr[BatchIO]('u', 0x25)
	UBLK_U_IO_COMMIT_IO_CMDS       = iowr[BatchIO]('u', 0x26)
	UBLK_U_IO_FETCH_IO_CMDS        = iowr[BatchIO]('u', 0x27)
)

// Results of an I/O command. ABORT, which is -ENODEV, means that the tag must
// not be fetched again.
const (
	UBLK_IO_RES_OK            = 0
	UBLK_IO_RES_NEED_GET_DATA = 1
	UBLK_IO_RES_ABORT         = -19
)

// Offsets in /dev/ublkcN, in bytes: of the I/O descriptors for mmap, and of
// the request buffers for pread and pwrite with UBLK_F_USER_COPY. The position
// of a byte of a buffer is UBLKSRV_IO_BUF_OFFSET plus a number made of the
// byte's offset, the tag and the queue at the bits given here.
const (
	UBLKSRV_CMD_BUF_OFFSET = 0
	UBLKSRV_IO_BUF_OFFSET  = 0x80000000

	UBLK_IO_BUF_OFF       = 0
	UBLK_IO_BUF_BITS      = 25
	UBLK_IO_BUF_BITS_MASK = 1<<UBLK_IO_BUF_BITS - 1

	UBLK_TAG_OFF       = UBLK_IO_BUF_BITS
	UBLK_TAG_BITS      = 16
	UBLK_TAG_BITS_MASK = 1<<UBLK_TAG_BITS - 1

	UBLK_QID_OFF       = UBLK_TAG_OFF + UBLK_TAG_BITS
	UBLK_QID_BITS      = 12
	UBLK_QID_BITS_MASK = 1<<UBLK_QID_BITS - 1

	UBLKSRV_IO_BUF_TOTAL_BITS = UBLK_QID_OFF + UBLK_QID_BITS
	UBLKSRV_IO_BUF_TOTAL_SIZE = 1 << UBLKSRV_IO_BUF_TOTAL_BITS

	UBLK_INTEGRITY_FLAG_OFF   = 62 // the integrity buffer instead of the data
	UBLKSRV_IO_INTEGRITY_FLAG = 1 << UBLK_INTEGRITY_FLAG_OFF
)

// Limits.
const (
	UBLK_MAX_QUEUE_DEPTH  = 4096               // tags of a queue
	UBLK_MAX_NR_QUEUES    = 1 << UBLK_QID_BITS // queues of a device
	UBLK_MIN_SEGMENT_SIZE = 4096               // bytes
	UBLK_FEATURES_LEN     = 8                  // bytes that UBLK_U_CMD_GET_FEATURES writes
)

// Features, a mask of 64 bits.
const (
	UBLK_F_SUPPORT_ZERO_COPY      = 1 << 0
	UBLK_F_URING_CMD_COMP_IN_TASK = 1 << 1
	UBLK_F_NEED_GET_DATA          = 1 << 2
	UBLK_F_USER_RECOVERY          = 1 << 3
	UBLK_F_USER_RECOVERY_REISSUE  = 1 << 4
	UBLK_F_UNPRIVILEGED_DEV       = 1 << 5
	UBLK_F_CMD_IOCTL_ENCODE       = 1 << 6
	UBLK_F_USER_COPY              = 1 << 7
	UBLK_F_ZONED                  = 1 << 8
	UBLK_F_USER_RECOVERY_FAIL_IO  = 1 << 9
	UBLK_F_UPDATE_SIZE            = 1 << 10
	UBLK_F_AUTO_BUF_REG           = 1 << 11
	UBLK_F_QUIESCE                = 1 << 12
	UBLK_F_PER_IO_DAEMON          = 1 << 13
	UBLK_F_BUF_REG_OFF_DAEMON     = 1 << 14
	UBLK_F_BATCH_IO               = 1 << 15
	UBLK_F_INTEGRITY              = 1 << 16
	UBLK_F_SAFE_STOP_DEV          = 1 << 17
	UBLK_F_NO_AUTO_PART_SCAN      = 1 << 18
	UBLK_F_SHMEM_ZC               = 1 << 19
	UBLK_F_IO_DESC_SIZE           = 1 << 20
)

// Device states, CtrlDevInfo.State.
const (
	UBLK_S_DEV_DEAD     = 0
	UBLK_S_DEV_LIVE     = 1
	UBLK_S_DEV_QUIESCED = 2
	UBLK_S_DEV_FAIL_IO  = 3
)

// Operations, the low 8 bits of IODesc.OpFlags.
const (
	UBLK_IO_OP_READ           = 0
	UBLK_IO_OP_WRITE          = 1
	UBLK_IO_OP_FLUSH          = 2
	UBLK_IO_OP_DISCARD        = 3
	UBLK_IO_OP_WRITE_SAME     = 4
	UBLK_IO_OP_WRITE_ZEROES   = 5
	UBLK_IO_OP_ZONE_OPEN      = 10
	UBLK_IO_OP_ZONE_CLOSE     = 11
	UBLK_IO_OP_ZONE_FINISH    = 12
	UBLK_IO_OP_ZONE_APPEND    = 13
	UBLK_IO_OP_ZONE_RESET_ALL = 14
	UBLK_IO_OP_ZONE_RESET     = 15
	UBLK_IO_OP_REPORT_ZONES   = 18
)

// Flags of an operation, in place in IODesc.OpFlags: compare them with
// the whole word, not with what C's ublksrv_get_flags has shifted.
const (
	UBLK_IO_F_FAILFAST_DEV       = 1 << 8
	UBLK_IO_F_FAILFAST_TRANSPORT = 1 << 9
	UBLK_IO_F_FAILFAST_DRIVER    = 1 << 10
	UBLK_IO_F_META               = 1 << 11
	UBLK_IO_F_FUA                = 1 << 13
	UBLK_IO_F_NOUNMAP            = 1 << 15
	UBLK_IO_F_SWAP               = 1 << 16
	UBLK_IO_F_NEED_REG_BUF       = 1 << 17
	UBLK_IO_F_INTEGRITY          = 1 << 18
	UBLK_IO_F_SHMEM_ZC           = 1 << 19
)

// Flags in the arguments of commands.
const (
	UBLK_AUTO_BUF_REG_FALLBACK = 1 << 0 // AutoBufReg.Flags
	UBLK_AUTO_BUF_REG_F_MASK   = UBLK_AUTO_BUF_REG_FALLBACK

	UBLK_BATCH_F_HAS_ZONE_LBA          = 1 << 0 // BatchIO.Flags
	UBLK_BATCH_F_HAS_BUF_ADDR          = 1 << 1
	UBLK_BATCH_F_AUTO_BUF_REG_FALLBACK = 1 << 2

	UBLK_SHMEM_BUF_READ_ONLY = 1 << 0 // ShmemBufReg.Flags
)

// The parts of IODesc.Addr with UBLK_IO_F_SHMEM_ZC: a byte offset in
// the low bits, above it the index of the registered buffer.
const (
	UBLK_SHMEM_ZC_OFF_MASK = 0xffffffff
	UBLK_SHMEM_ZC_IDX_OFF  = 32
	UBLK_SHMEM_ZC_IDX_MASK = 0xffff
)

// Which parts of a Params are valid, Params.Types.
const (
	UBLK_PARAM_TYPE_BASIC     = 1 << 0
	UBLK_PARAM_TYPE_DISCARD   = 1 << 1
	UBLK_PARAM_TYPE_DEVT      = 1 << 2
	UBLK_PARAM_TYPE_ZONED     = 1 << 3
	UBLK_PARAM_TYPE_DMA_ALIGN = 1 << 4
	UBLK_PARAM_TYPE_SEGMENT   = 1 << 5
	UBLK_PARAM_TYPE_INTEGRITY = 1 << 6
)

// Attributes of a device, ParamBasic.Attrs.
const (
	UBLK_ATTR_READ_ONLY      = 1 << 0
	UBLK_ATTR_ROTATIONAL     = 1 << 1
	UBLK_ATTR_VOLATILE_CACHE = 1 << 2
	UBLK_ATTR_FUA            = 1 << 3
)

// CtrlCmd is struct ublksrv_ctrl_cmd of linux/ublk_cmd.h: the payload of
// every control command.
type CtrlCmd struct {
	_          structs.HostLayout
	DevID      uint32    // ^0 where ADD_DEV shall choose
	QueueID    uint16    // ^0 unless the command is for a queue
	Len        uint16    // bytes at Addr
	Addr       uint64    // address of the command's buffer, in or out
	Data       [1]uint64 // inline argument
	DevPathLen uint16    // bytes of the path before the buffer, NUL included
	Pad        uint16
	Reserved   uint32
}

// CtrlDevInfo is struct ublksrv_ctrl_dev_info of linux/ublk_cmd.h: what
// ADD_DEV asks for and the kernel grants.
type CtrlDevInfo struct {
	_             structs.HostLayout
	NrHwQueues    uint16
	QueueDepth    uint16 // tags of a queue
	State         uint16 // UBLK_S_DEV_*
	IODescSize    uint16 // bytes, with UBLK_F_IO_DESC_SIZE
	MaxIOBufBytes uint32 // bytes, rounded down to a page by the kernel
	DevID         uint32
	UblksrvPID    int32 // thread group of the server
	Pad1          uint32
	Flags         uint64 // UBLK_F_*
	UblksrvFlags  uint64 // the server's own; the kernel only keeps them
	OwnerUID      uint32
	OwnerGID      uint32
	Reserved1     uint64
	Reserved2     uint64
}

// IODesc is struct ublksrv_io_desc of linux/ublk_cmd.h: a request, in
// memory shared with the kernel, indexed by tag.
type IODesc struct {
	_           structs.HostLayout
	OpFlags     uint32 // UBLK_IO_OP_* in bits 0 to 7, UBLK_IO_F_* in bits 8 to 31
	NrSectors   uint32 // sectors; or nr_zones of UBLK_IO_OP_REPORT_ZONES
	StartSector uint64 // sectors
	Addr        uint64 // the server's buffer, given with the tag
}

// IOCmd is struct ublksrv_io_cmd of linux/ublk_cmd.h: the payload of a
// command for one tag.
type IOCmd struct {
	_      structs.HostLayout
	QID    uint16 `abi:"q_id"`
	Tag    uint16
	Result int32  // bytes or a negated errno, for a commit
	Addr   uint64 // buffer address or index; or zone_append_lba
}

// AutoBufReg is struct ublk_auto_buf_reg of linux/ublk_cmd.h. It travels in
// the address of a fetch command's SQE, first member in the lowest bits.
type AutoBufReg struct {
	_         structs.HostLayout
	Index     uint16 // slot in the ring's buffer table
	Flags     uint8  // UBLK_AUTO_BUF_REG_*
	Reserved0 uint8
	Reserved1 uint32
}

// ElemHeader is struct ublk_elem_header of linux/ublk_cmd.h: one element of
// a batch command's buffer. The optional members follow it, 8 bytes each.
type ElemHeader struct {
	_        structs.HostLayout
	Tag      uint16
	BufIndex uint16 // slot in the ring's buffer table, with UBLK_F_AUTO_BUF_REG
	Result   int32  // bytes or a negated errno, for a commit
}

// BatchIO is struct ublk_batch_io of linux/ublk_cmd.h: the payload of a
// batch command.
type BatchIO struct {
	_         structs.HostLayout
	QID       uint16 `abi:"q_id"`
	Flags     uint16 // UBLK_BATCH_F_*
	NrElem    uint16
	ElemBytes uint8 // bytes of an element
	Reserved  uint8
	Reserved2 uint64
}

// ShmemBufReg is struct ublk_shmem_buf_reg of linux/ublk_cmd.h: the buffer
// of UBLK_U_CMD_REG_BUF.
type ShmemBufReg struct {
	_        structs.HostLayout
	Addr     uint64
	Len      uint64 // bytes, a multiple of the page size
	Flags    uint32 // UBLK_SHMEM_BUF_*
	Reserved uint32
}

// ParamBasic is struct ublk_param_basic of linux/ublk_cmd.h. A shift is the
// binary logarithm of a size in bytes.
type ParamBasic struct {
	_                structs.HostLayout
	Attrs            uint32 // UBLK_ATTR_*
	LogicalBsShift   uint8
	PhysicalBsShift  uint8
	IOOptShift       uint8  // 0 for none
	IOMinShift       uint8  // 0 for none
	MaxSectors       uint32 // sectors of one request
	ChunkSectors     uint32 // sectors; no request crosses a multiple of it
	DevSectors       uint64 // sectors of the device
	VirtBoundaryMask uint64 // bytes - 1
}

// ParamDiscard is struct ublk_param_discard of linux/ublk_cmd.h.
type ParamDiscard struct {
	_                     structs.HostLayout
	DiscardAlignment      uint32 // bytes
	DiscardGranularity    uint32 // bytes
	MaxDiscardSectors     uint32 // sectors of one request
	MaxWriteZeroesSectors uint32 // sectors of one request
	MaxDiscardSegments    uint16
	Reserved0             uint16
}

// ParamDevt is struct ublk_param_devt of linux/ublk_cmd.h; only read.
type ParamDevt struct {
	_         structs.HostLayout
	CharMajor uint32
	CharMinor uint32
	DiskMajor uint32 // valid once the device is started
	DiskMinor uint32
}

// ParamZoned is struct ublk_param_zoned of linux/ublk_cmd.h.
type ParamZoned struct {
	_                    structs.HostLayout
	MaxOpenZones         uint32
	MaxActiveZones       uint32
	MaxZoneAppendSectors uint32 // sectors
	Reserved             [20]uint8
}

// ParamDMAAlign is struct ublk_param_dma_align of linux/ublk_cmd.h.
type ParamDMAAlign struct {
	_         structs.HostLayout
	Alignment uint32 // a mask: bytes - 1
	Pad       [4]uint8
}

// ParamSegment is struct ublk_param_segment of linux/ublk_cmd.h. None of
// the three may be 0.
type ParamSegment struct {
	_               structs.HostLayout
	SegBoundaryMask uint64 // bytes - 1
	MaxSegmentSize  uint32 // bytes
	MaxSegments     uint16
	Pad             [2]uint8
}

// ParamIntegrity is struct ublk_param_integrity of linux/ublk_cmd.h.
type ParamIntegrity struct {
	_                    structs.HostLayout
	Flags                uint32 // LBMD_PI_CAP_* of linux/fs.h
	MaxIntegritySegments uint16 // 0 for no limit
	IntervalExp          uint8  // binary logarithm of bytes
	MetadataSize         uint8  // bytes
	PiOffset             uint8  // bytes
	CsumType             uint8  // LBMD_PI_CSUM_* of linux/fs.h
	TagSize              uint8  // bytes
	Pad                  [5]uint8
}

// Params is struct ublk_params of linux/ublk_cmd.h: the buffer of
// SET_PARAMS and GET_PARAMS.
type Params struct {
	_         structs.HostLayout
	Len       uint32 // bytes of this struct
	Types     uint32 // UBLK_PARAM_TYPE_*
	Basic     ParamBasic
	Discard   ParamDiscard
	Devt      ParamDevt
	Zoned     ParamZoned
	DMA       ParamDMAAlign
	_         [4]uint8 // the compiler's padding in C
	Seg       ParamSegment
	Integrity ParamIntegrity
}
