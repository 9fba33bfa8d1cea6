package ring

import (
	"errors"
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Restrictions are what a ring may do. The kernel refuses everything else with EACCES.
type Restrictions struct {
	Ops   []uint8 // opcodes of entries, IORING_OP_…
	Flags uint8   // flags of entries, IOSQE_…
	// Registers are opcodes of registrations, IORING_REGISTER_… and IORING_UNREGISTER_…. An empty list means none
	// before Linux 7.0, and all since then (io_parse_restrictions in io_uring/register.c).
	Registers []uint8
}

// list returns the restrictions as the kernel takes them. The kernel allows no flag unless one element says so.
func (r *Restrictions) list() []ioUringRestriction {
	list := []ioUringRestriction{{Opcode: IORING_RESTRICTION_SQE_FLAGS_ALLOWED, RegisterOp: r.Flags}}
	for _, op := range r.Ops {
		list = append(list, ioUringRestriction{Opcode: IORING_RESTRICTION_SQE_OP, RegisterOp: op})
	}
	for _, op := range r.Registers {
		list = append(list, ioUringRestriction{Opcode: IORING_RESTRICTION_REGISTER_OP, RegisterOp: op})
	}
	return list
}

// restrict restricts a ring that the kernel has made disabled.
func restrict(fd int, to *Restrictions) error {
	list := to.list()
	if err := ioURingRegister(fd, IORING_REGISTER_RESTRICTIONS, unsafe.Pointer(&list[0]), uint32(len(list))); err != nil {
		return fmt.Errorf("restrict ring: %w", err)
	}
	return nil
}

// enable maps a ring that the kernel has made disabled, and enables it. It closes the ring on failure.
func enable(fd int, p *ioUringParams) (*Ring, error) {
	r, err := mapRing(fd, p)
	if err != nil {
		return nil, err
	}
	if err := r.register("enable ring", IORING_REGISTER_ENABLE_RINGS, nil, 0); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

// blind is the descriptor of a registration without a ring.
const blind = -1

// HasTaskRestrictions returns nil if the kernel has RestrictThreads. It changes nothing. The error wraps
// [errors.ErrUnsupported] if the kernel lacks it, and EPERM if the calling thread has restrictions that allow this
// registration, or a filter (IORING_REGISTER_BPF_FILTER).
func HasTaskRestrictions() error {
	// The kernel looks at the thread and at the number before it reads the argument (io_register_restrictions_task in
	// io_uring/register.c). Older kernels refuse the descriptor (EBADF) or the opcode without a ring (EINVAL).
	switch err := ioURingRegister(blind, IORING_REGISTER_RESTRICTIONS, nil, 1); {
	case errors.Is(err, unix.EFAULT), errors.Is(err, unix.EACCES): // EACCES as in RestrictThreads
		return nil
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EBADF), errors.Is(err, unix.ENOSYS):
		return fmt.Errorf("restrictions of tasks: %w: %w", errors.ErrUnsupported, err)
	default:
		return fmt.Errorf("ask for restrictions of tasks: %w", err)
	}
}

// RestrictThreads restricts all rings that the threads of this process make from now on. Threads and processes that they
// start have the restrictions too, and nothing changes them. The error wraps those of HasTaskRestrictions, EACCES without
// no_new_privs and CAP_SYS_ADMIN or if the process has restrictions that do not allow further ones, and ENOTSUP in a process
// with C code (Linux 7.0).
func RestrictThreads(r Restrictions) error {
	if err := HasTaskRestrictions(); err != nil {
		return err
	}
	list := r.list()
	arg := make([]ioUringRestriction, 1+len(list)) // the header has the size of an element
	*(*ioUringTaskRestriction)(unsafe.Pointer(&arg[0])) = ioUringTaskRestriction{NrRes: uint16(len(list))}
	copy(arg[1:], list)
	none := blind
	_, _, errno := syscall.AllThreadsSyscall6(unix.SYS_IO_URING_REGISTER, uintptr(none), IORING_REGISTER_RESTRICTIONS,
		uintptr(unsafe.Pointer(&arg[0])), 1, 0, 0)
	if errno != 0 {
		return fmt.Errorf("restrict rings: %w", errno)
	}
	return nil
}
