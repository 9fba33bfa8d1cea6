package sandbox

import (
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/eintr"
	"github.com/ublk-loop/ublk-loop/ring"
)

// RingClient gets rings from the starter of this process, which makes them (RingServer). So the rings have limits, whatever
// code runs in this process.
type RingClient struct {
	mu      sync.Mutex // held from a request to the end of its answer
	layouts int        // descriptor of a pipe with the Layout of each ring
}

// singleIssuer is Options.SingleIssuer in a request.
const singleIssuer = 1

// New is ring.New without Options.SQE128. The starter decides on the restrictions.
func (c *RingClient) New(opts ring.Options) (*ring.Ring, error) {
	if opts.SQE128 {
		return nil, fmt.Errorf("get a ring with large entries from the server: %w", unix.EINVAL)
	}
	fd, layout, err := c.request(opts)
	if err != nil {
		return nil, err
	}
	return ring.Adopt(fd, layout)
}

// request requests a ring with a call of io_uring_setup, which the kernel does not carry out: the starter sees the arguments,
// and puts the ring's descriptor in the result.
func (c *RingClient) request(opts ring.Options) (fd int, layout ring.Layout, err error) {
	flags := uintptr(0)
	if opts.SingleIssuer {
		flags = singleIssuer
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	result, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, uintptr(opts.Entries), uintptr(opts.CQEntries), flags)
	if errno != 0 {
		return -1, layout, fmt.Errorf("get a ring from the server: %w", errno)
	}
	err = eintr.Repeat(func() error {
		n, err := unix.Read(c.layouts, layout[:])
		if err == nil && n != len(layout) {
			err = unix.EBADMSG
		}
		return err
	})
	if err != nil {
		_ = unix.Close(int(result))
		return -1, layout, fmt.Errorf("get the layout of a ring: %w", err)
	}
	return int(result), layout, nil
}
