package ring

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Options describes a ring. The zero value of a field is its default.
type Options struct {
	// Entries is the size of the submission queue, 1 to 32768. The kernel
	// rounds it up to a power of two. 0 means 8.
	Entries uint32
	// CQEntries is the size of the completion queue, at least Entries. The
	// kernel rounds it up to a power of two. 0 means twice Entries. Make it
	// larger than the number of operations that can be in flight, because an
	// overflow of the completion queue is an error ([ErrOverflow]).
	CQEntries uint32
	// SQE128 makes entries of 128 bytes, for commands with a payload of up to
	// 80 bytes instead of 16 (Linux 5.19).
	SQE128 bool
	// SingleIssuer binds the ring to the calling thread. The kernel then runs
	// completions only when that thread waits for them
	// (IORING_SETUP_SINGLE_ISSUER 6.0, IORING_SETUP_DEFER_TASKRUN 6.1). On
	// older kernels the ring works, but more slowly.
	SingleIssuer bool
	// Restrictions are what the ring may do; nil for everything (Linux 5.10). The error of New wraps EBUSY or EACCES if
	// the process already has restrictions for its rings (RestrictThreads).
	Restrictions *Restrictions
}

// Ring is an io_uring instance. The package documentation says which goroutine
// and thread may use it.
type Ring struct {
	fd         int
	enterFD    int    // fd, or the index from RegisterRingFD
	enterFlags uint32 // IORING_ENTER_REGISTERED_RING, IORING_ENTER_NO_IOWAIT
	flags      uint32 // IORING_SETUP_… that the kernel granted
	features   uint32 // IORING_FEAT_… of the kernel
	maps       mappings
	sq         submissionQueue
	cq         completionQueue
}

// New creates a ring. The error wraps ENOSYS if the kernel has no io_uring,
// EPERM if kernel.io_uring_disabled forbids it, and ENOMEM if the kernel has no
// memory for it (io_uring_setup(2)).
func New(opts Options) (*Ring, error) {
	fd, p, err := request(opts)
	if err != nil {
		return nil, err
	}
	if opts.Restrictions == nil {
		return mapRing(fd, p)
	}
	if err := restrict(fd, opts.Restrictions); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return enable(fd, p)
}

// mapRing makes a Ring of what the kernel has set up, and closes that on failure.
func mapRing(fd int, p *ioUringParams) (*Ring, error) {
	r := &Ring{fd: fd, enterFD: fd, flags: p.Flags, features: p.Features}
	if p.Features&IORING_FEAT_NO_IOWAIT != 0 {
		// An idle server waits for requests, not for a disk.
		r.enterFlags |= IORING_ENTER_NO_IOWAIT
	}
	if err := r.maps.mmap(fd, p); err != nil {
		return nil, errors.Join(fmt.Errorf("map io_uring: %w", err), r.Close())
	}
	r.sq.init(&r.maps, p)
	r.cq.init(&r.maps, p)
	return r, nil
}

// request requests the fastest ring first, and fewer flags while the kernel
// refuses them with EINVAL. It asks the kernel and concludes nothing from its
// version.
func request(opts Options) (int, *ioUringParams, error) {
	if opts.Entries == 0 {
		opts.Entries = 8
	}
	err := error(unix.EINVAL)
	for _, flags := range setupFlags(opts) {
		p := &ioUringParams{Flags: flags}
		if opts.CQEntries != 0 {
			p.Flags |= IORING_SETUP_CQSIZE
			p.CqEntries = opts.CQEntries
		}
		var fd int
		if fd, err = ioURingSetup(opts.Entries, p); err == nil {
			return fd, p, nil
		}
		if !errors.Is(err, unix.EINVAL) {
			break
		}
	}
	return -1, nil, fmt.Errorf("set up io_uring: %w", err)
}

// setupFlags returns the sets of flags to try, from most flags to fewest.
func setupFlags(opts Options) []uint32 {
	base := uint32(0)
	if opts.SQE128 {
		base = IORING_SETUP_SQE128
	}
	if opts.Restrictions != nil {
		base |= IORING_SETUP_R_DISABLED
	}
	if !opts.SingleIssuer {
		return []uint32{
			base | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_NO_SQARRAY,
			base | IORING_SETUP_SUBMIT_ALL,
			base,
		}
	}
	single := base | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_SINGLE_ISSUER
	return []uint32{
		single | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_NO_SQARRAY,
		single | IORING_SETUP_DEFER_TASKRUN,
		single | IORING_SETUP_COOP_TASKRUN,
		base | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_COOP_TASKRUN,
		base,
	}
}

// Flags returns the IORING_SETUP_ flags that the kernel granted.
func (r *Ring) Flags() uint32 { return r.flags }

// Features returns the IORING_FEAT_ bits of this kernel.
func (r *Ring) Features() uint32 { return r.features }

// FD returns the ring's file descriptor, or -1 after Close.
func (r *Ring) FD() int { return r.fd }

// Close unmaps and closes the ring. A second call does nothing. The kernel
// cancels the operations in flight. Memory that they write to must outlive
// them, so wait for their completions before Close. The kernel releases the
// ring some time later, with the files and buffers in its tables. If something
// waits for their release, empty the tables before Close.
func (r *Ring) Close() error {
	if r.fd < 0 {
		return nil
	}
	err := errors.Join(r.unregisterRingFD(), r.maps.munmap(), unix.Close(r.fd))
	r.fd, r.enterFD = -1, -1
	return err
}
