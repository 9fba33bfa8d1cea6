package ublk

import (
	"errors"
	"fmt"
	"sync"
	"time"
)

// What a command's header says where there is no device or queue.
const (
	anyDevice = ^uint32(0)
	noQueue   = ^uint16(0)
)

// commandTimeout bounds a command that waits for nothing but the driver
// itself. The kernel answers in microseconds; some releases lose a command for
// good, which must not take the caller along.
const commandTimeout = 30 * time.Second

// lingerTimeout bounds the wait for the last close of a device that is being
// deleted. A server's own close has happened by then, which leaves the users of
// a disk that was removed under them.
const lingerTimeout = time.Second

// Command is one command to /dev/ublk-control: the fields of struct
// ublksrv_ctrl_cmd that vary.
type Command struct {
	Op      uint32 // uapi.UBLK_U_CMD_…
	DevID   uint32 // ^0 for none
	QueueID uint16 // ^0 for none
	Data    uint64 // the inline argument
	Buf     []byte // in and out, at most a page
	Timeout time.Duration
}

// Transport carries commands to the driver, one at a time. Do returns nil or
// a bare errno. After Timeout (0 for none) it interrupts the command, which
// ends with EINTR, or with ErrControlHung when even that has no effect.
type Transport interface {
	Do(Command) error
	Close() error
}

// CharOpener is a Transport that has the character devices as well, in place of
// /dev/ublkcN.
type CharOpener interface {
	// OpenChar opens the character device of device id to serve it. The
	// caller closes the descriptor.
	OpenChar(id uint32) (fd int, err error)
}

// maxHung is how many commands may hang before no more are given: each keeps a
// thread and a ring for good.
const maxHung = 16

// Control gives commands to the ublk driver. It may be used by several
// goroutines, whose commands run side by side: one that takes long, be it for
// the pages that it has to write or for good, keeps nobody waiting.
type Control struct {
	// open opens a transport for a command when all others have one. nil
	// means that there is one transport, and commands take turns.
	open  func() (Transport, error)
	limit int        // of hung
	chars CharOpener // nil for /dev/ublkcN

	mu     sync.Mutex // protects what is below
	freed  sync.Cond  // busy has become less
	idle   []Transport
	busy   int
	hung   int // transports that were given up
	closed bool
}

// OpenControl opens /dev/ublk-control. It returns an error that wraps
// ErrNoDriver when that does not exist, EACCES or EPERM without CAP_SYS_ADMIN,
// and what ring.New returns where io_uring is missing or forbidden.
func OpenControl() (*Control, error) {
	open := func() (Transport, error) { return openTransport() }
	t, err := openTransport()
	if err != nil {
		return nil, err
	}
	return newControl(t, open, maxHung), nil
}

// NewControl returns a Control over a transport of the caller's, for tests. A
// [CharOpener] opens the character devices, too.
func NewControl(t Transport) *Control {
	c := newControl(t, nil, 1)
	c.chars, _ = t.(CharOpener)
	return c
}

func newControl(t Transport, open func() (Transport, error), limit int) *Control {
	c := &Control{open: open, limit: limit, idle: []Transport{t}}
	c.freed.L = &c.mu
	return c
}

// do carries out one command. The error is a bare errno or one of this
// package's.
func (c *Control) do(cmd Command) error {
	t, err := c.take()
	if err != nil {
		return err
	}
	err = t.Do(cmd)
	c.put(t, errors.Is(err, ErrControlHung))
	return err
}

// take returns a transport that nobody uses. Where another cannot be opened,
// for want of descriptors or memory, it waits for one of those in use.
func (c *Control) take() (Transport, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		switch n := len(c.idle); {
		case c.closed:
			return nil, ErrClosed
		case n > 0:
			t := c.idle[n-1]
			c.idle = c.idle[:n-1]
			c.busy++
			return t, nil
		case c.hung >= c.limit:
			return nil, ErrControlHung
		case c.open != nil:
			t, err := c.open()
			if err == nil {
				c.busy++
				return t, nil
			}
			if c.busy == 0 {
				return nil, err
			}
		}
		c.freed.Wait()
	}
}

// put takes a transport back. One stays for the next command; one that hangs is
// left alone.
func (c *Control) put(t Transport, hung bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.busy--
	switch {
	case hung:
		c.hung++
	case len(c.idle) > 0:
		_ = t.Close()
	default:
		c.idle = append(c.idle, t)
	}
	c.freed.Broadcast()
}

// Close closes /dev/ublk-control once all commands have ended. Devices stay as
// they are. A second call does nothing.
func (c *Control) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for c.busy > 0 {
		c.freed.Wait()
	}
	var errs []error
	for _, t := range c.idle {
		errs = append(errs, t.Close())
	}
	c.idle = nil
	return errors.Join(errs...)
}

// openChar opens the character device of device id to serve it.
func (c *Control) openChar(id uint32) (int, error) {
	if c.chars != nil {
		return c.chars.OpenChar(id)
	}
	return openChar(CharPath(id))
}

// wrap returns err with what was attempted, nil for nil.
func wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}
