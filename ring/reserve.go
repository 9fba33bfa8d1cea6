package ring

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Reserve makes the kernel allocate the memory for n entries in flight. n is at
// most the size of the submission queue, which must be empty. The kernel keeps
// this memory until the ring is closed (submit_state.free_list in
// io_uring/io_uring.c). Therefore a later submit with at most n entries in
// flight takes all its entries: lack of memory cannot leave an entry behind or
// cut a link in two.
//
// The entries do nothing and succeed without a completion (Linux 5.17). All
// entries of one submit exist at once, because the kernel frees them at its
// end.
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
