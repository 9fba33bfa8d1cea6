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
	Op      uint32 // UBLK_U_CMD_…
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

// Control gives commands to the ublk driver. It may be used by several
// goroutines; they take turns.
type Control struct {
	mu   sync.Mutex // protects what is below
	t    Transport  // nil after Close
	hung bool
}

// OpenControl opens /dev/ublk-control. It returns an error that wraps
// ErrNoDriver when that does not exist, EACCES or EPERM without CAP_SYS_ADMIN,
// and what ring.New returns where io_uring is missing or forbidden.
func OpenControl() (*Control, error) {
	t, err := openTransport()
	if err != nil {
		return nil, err
	}
	return NewControl(t), nil
}

// NewControl returns a Control over a transport of the caller's, for tests.
func NewControl(t Transport) *Control { return &Control{t: t} }

// do carries out one command. The error is a bare errno or one of this
// package's.
func (c *Control) do(cmd Command) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.t == nil:
		return ErrClosed
	case c.hung:
		return ErrControlHung
	}
	err := c.t.Do(cmd)
	c.hung = errors.Is(err, ErrControlHung)
	return err
}

// Close closes /dev/ublk-control. Devices stay as they are. A second call does
// nothing.
func (c *Control) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.t == nil {
		return nil
	}
	err := c.t.Close()
	c.t = nil
	return err
}

// wrap returns err with what was attempted, nil for nil.
func wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}
