package sandbox

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ring"
)

// ServingRings is what the rings of a process that serves requests may do. All else fails with EACCES. A ring can do what
// no list of system calls sees, such as to make a socket. TestServingRings compares this list with the code.
var ServingRings = &ring.Restrictions{
	Ops: []uint8{
		ring.IORING_OP_NOP, ring.IORING_OP_POLL_ADD, ring.IORING_OP_URING_CMD,
		ring.IORING_OP_READ, ring.IORING_OP_WRITE, ring.IORING_OP_WRITEV, ring.IORING_OP_READ_FIXED, ring.IORING_OP_WRITE_FIXED,
		ring.IORING_OP_FSYNC, ring.IORING_OP_FALLOCATE,
	},
	Flags: ring.IOSQE_FIXED_FILE | ring.IOSQE_IO_LINK | ring.IOSQE_IO_HARDLINK | ring.IOSQE_ASYNC | ring.IOSQE_CQE_SKIP_SUCCESS,
	Registers: []uint8{
		ring.IORING_REGISTER_RING_FDS, ring.IORING_UNREGISTER_RING_FDS,
		ring.IORING_REGISTER_FILES, ring.IORING_REGISTER_FILES_UPDATE,
		ring.IORING_REGISTER_BUFFERS2, ring.IORING_REGISTER_BUFFERS_UPDATE,
		ring.IORING_REGISTER_IOWQ_MAX_WORKERS,
	},
}

// LimitRings limits the rings that all threads will make. It returns an error that wraps ErrUnsupported if the kernel cannot do
// that, or takes no limits beside those or the filter (IORING_REGISTER_BPF_FILTER) that the process has from its starter. It
// does nothing if the starter's limits forbid limits. The process must have no_new_privs.
func LimitRings(r *ring.Restrictions) error {
	switch err := ring.RestrictThreads(*r); {
	case errors.Is(err, unix.EACCES):
		return nil
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("%w: %w", errors.ErrUnsupported, err)
	default:
		return err
	}
}
