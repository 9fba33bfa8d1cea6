// Kernel names stay verbatim in this file; the rest of the package has Go names.
//
// Source: include/uapi/linux/blkdev.h of Linux 7.3 (the command is in 6.12 and later),
// and the _IOC encoding of asm-generic/ioctl.h. abi_test.go compares this file with the
// output of a C program that includes those headers (testdata/abi.txt).

package backing

// These are the parts of a command number.
const (
	_IOC_NRSHIFT   = 0
	_IOC_TYPESHIFT = 8
)

// ioc is C's _IO: the number of command nr of the family typ without an argument.
func ioc(typ, nr uint32) uint32 { return typ<<_IOC_TYPESHIFT | nr<<_IOC_NRSHIFT }

// BLOCK_URING_CMD_DISCARD is the URING_CMD of a block device that discards SQE.Addr3
// bytes from byte SQE.Addr on.
var BLOCK_URING_CMD_DISCARD = ioc(0x12, 0)
