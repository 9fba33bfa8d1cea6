package ring

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Layout is where the parts of a ring are in its memory, in the form of the kernel.
type Layout [LayoutSize]byte

// LayoutSize is the size of struct io_uring_params (linux/io_uring.h) in bytes.
const LayoutSize = 120

// Make makes a ring for another process, which may be one that must not make rings. It returns the descriptor, which
// closes at an exec, and what else Adopt needs. The ring has opts.Restrictions, which must not be nil, and can do nothing
// before Adopt. If the calling thread has restrictions (RestrictThreads), the ring has those instead.
//
// The kernel keeps a tie from the calling thread to the ring, and the release of the ring waits until that thread has run
// (io_ring_exit_work in io_uring/io_uring.c). A thread that ends has no ties. Its end cancels nothing of the ring, because
// it has submitted nothing (io_uring_cancel_generic).
func Make(opts Options) (fd int, layout Layout, err error) {
	if opts.Restrictions == nil {
		return -1, layout, fmt.Errorf("make a ring without restrictions for another process: %w", unix.EINVAL)
	}
	fd, p, err := request(opts)
	if err != nil {
		return -1, layout, err
	}
	if err := restrict(fd, opts.Restrictions); err != nil && !errors.Is(err, unix.EBUSY) {
		return -1, layout, errors.Join(err, unix.Close(fd))
	}
	if _, err := binary.Encode(layout[:], binary.NativeEndian, p); err != nil {
		return -1, layout, errors.Join(err, unix.Close(fd))
	}
	return fd, layout, nil
}

// Adopt returns a ring that another process has made (Make). With Options.SingleIssuer it belongs to the calling thread.
// Adopt takes over the descriptor, and closes it on failure.
func Adopt(fd int, layout Layout) (*Ring, error) {
	var p ioUringParams
	if _, err := binary.Decode(layout[:], binary.NativeEndian, &p); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return enable(fd, &p)
}
