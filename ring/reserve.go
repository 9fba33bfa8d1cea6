package ring

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Reserve makes the kernel allocate now what n entries in flight need, n at
// most the size of the submission queue, which must be empty. It keeps what it
// has allocated until the ring's end (submit_state.free_list in
// io_uring/io_uring.c), so that from then on a submit with no more than n in
// flight takes all its entries: none is left for want of memory, and no link is
// cut in two by that.
//
// The entries do nothing, and complete without a completion (Linux 5.17).
// Those of one submit exist all at once, since they are freed at its end.
func (r *Ring) Reserve(n uint32) error {
	for range n {
		sqe := r.GetSQE()
		if sqe == nil {
			return fmt.Errorf("reserve %d entries: %w", n, unix.EINVAL)
		}
		sqe.PrepNop()
		sqe.Flags = IOSQE_CQE_SKIP_SUCCESS
	}
	return r.Submit()
}
