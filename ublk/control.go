package ublk

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ublk-loop/ublk-loop/ublk/uapi"
)

// The numbers in a command's header that stand for no device and no queue.
const (
	anyDevice = ^uint32(0)
	noQueue   = ^uint16(0)
)

// commandTimeout bounds a command that waits only for the driver. The kernel answers in
// microseconds. Some releases lose a command for good, and the caller must not wait for
// ever.
const commandTimeout = 30 * time.Second

// lingerTimeout bounds the wait for the last close of a device that is being deleted. The
// server has closed it by then. Only users of the removed disk may still have it open.
const lingerTimeout = time.Second

// Command is one command to /dev/ublk-control. It has the fields of struct
// ublksrv_ctrl_cmd that vary.
type Command struct {
	Op      uint32 // uapi.UBLK_U_CMD_…
	DevID   uint32 // ^0 for none
	QueueID uint16 // ^0 for none
	Data    uint64 // inline argument
	Buf     []byte // input and output, at most a page
	Timeout time.Duration
}

// Transport carries commands to the driver, one at a time. Do returns nil or a bare errno.
// After Timeout (0 for none) it interrupts the command. The error is EINTR then, or
// ErrControlHung if the interruption has no effect. Close waits for the end of such a
// command.
type Transport interface {
	Do(Command) error
	Close() error
}

// CharOpener is a Transport that also opens character devices, in place of /dev/ublkcN.
type CharOpener interface {
	// OpenChar opens the character device of device id to serve it. The caller
	// closes the descriptor.
	OpenChar(id uint32) (fd int, err error)
}

// maxHung is the number of hung commands for no particular device after which Control
// refuses more of them. Each keeps a thread and a ring. A device may have one hung command,
// so that a device that hangs does not keep the Control from other devices.
const maxHung = 16

// hungPatience is the time for which a command waits until fewer commands hang. When a
// device goes on, all its commands end at about the same time.
const hungPatience = time.Second

// Control gives commands to the ublk driver. Several goroutines may use it. Their commands
// run side by side, so a command that takes long, or hangs, does not delay the others.
type Control struct {
	// open opens a further transport if all others are busy. With nil there is one
	// transport, and commands take turns.
	open  func() (Transport, error)
	chars CharOpener // nil for /dev/ublkcN

	mu     sync.Mutex // protects what is below
	freed  sync.Cond  // signals that busy or hung has become less
	idle   []Transport
	busy   int
	hung   map[uint32]int // by device: commands that were given up and have not ended
	closed bool
}

// OpenControl opens /dev/ublk-control. It returns an error that wraps ErrNoDriver if that
// does not exist, EACCES or EPERM without CAP_SYS_ADMIN, and the error of ring.New if
// io_uring is missing or forbidden.
func OpenControl() (*Control, error) {
	open := func() (Transport, error) { return openTransport() }
	t, err := openTransport()
	if err != nil {
		return nil, err
	}
	return newControl(t, open), nil
}

// NewControl returns a Control over a transport of the caller, for tests. If it is a
// [CharOpener], it also opens the character devices.
func NewControl(t Transport) *Control {
	c := newControl(t, nil)
	c.chars, _ = t.(CharOpener)
	return c
}

func newControl(t Transport, open func() (Transport, error)) *Control {
	c := &Control{open: open, idle: []Transport{t}, hung: map[uint32]int{}}
	c.freed.L = &c.mu
	return c
}

// do carries out one command. The error is a bare errno or an error of this package.
func (c *Control) do(cmd Command) error {
	t, err := c.take(cmd)
	if err != nil {
		return err
	}
	err = t.Do(cmd)
	c.put(t, cmd, errors.Is(err, ErrControlHung))
	return err
}

// take returns an unused transport. If it cannot open another, because descriptors or
// memory are short, it waits for one that is in use.
func (c *Control) take(cmd Command) (Transport, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.await(hungPatience, func() bool { return c.closed || !c.wouldHang(cmd) }) {
		return nil, ErrControlHung
	}
	for {
		switch n := len(c.idle); {
		case c.closed:
			return nil, ErrClosed
		case n > 0:
			t := c.idle[n-1]
			c.idle = c.idle[:n-1]
			c.busy++
			return t, nil
		case c.open != nil:
			t, err := c.open()
			if err == nil {
				c.busy++
				return t, nil
			}
			if c.busy == 0 {
				return nil, err
			}
		case c.busy == 0:
			return nil, ErrControlHung // the only transport hangs
		}
		c.freed.Wait()
	}
}

// wouldHang reports whether a command would probably be given up too. Some commands do not
// depend on the device, and some have no limit and wait for it in any case. The caller holds
// mu.
func (c *Control) wouldHang(cmd Command) bool {
	limit := 1
	if cmd.DevID == anyDevice {
		limit = maxHung
	}
	return cmd.Timeout != 0 && cmd.Op != uapi.UBLK_U_CMD_GET_DEV_INFO && c.hung[cmd.DevID] >= limit
}

// maxIdle is the number of unused transports that a Control keeps. A server makes and removes several
// devices at once, and a further transport costs it a thread and a ring.
const maxIdle = 4

// put takes a transport back. It keeps some for the next commands, and closes others.
func (c *Control) put(t Transport, cmd Command, hung bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.busy--
	switch {
	case hung:
		c.hung[cmd.DevID]++
		if c.open != nil {
			go c.reclaim(t, cmd.DevID) // ends with the command
		}
	case len(c.idle) == maxIdle || c.closed && c.idle == nil:
		_ = t.Close()
	default:
		c.idle = append(c.idle, t)
	}
	c.freed.Broadcast()
}

// reclaim closes a transport whose command was given up, when the command has ended.
func (c *Control) reclaim(t Transport, device uint32) {
	_ = t.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.hung[device]--; c.hung[device] == 0 {
		delete(c.hung, device)
	}
	c.freed.Broadcast()
}

// closeTimeout bounds the wait of Close for commands under way.
const closeTimeout = 5 * time.Second

// Close waits until all commands have ended and closes /dev/ublk-control. Devices stay as
// they are. If commands do not end within five seconds, Close returns an error that wraps
// ErrControlHung. These commands continue. A second call does nothing.
func (c *Control) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil
	}
	c.closed = true
	var err error
	if !c.await(closeTimeout, func() bool { return c.busy == 0 }) {
		err = fmt.Errorf("close %s: %d commands: %w", controlPath, c.busy, ErrControlHung)
	}
	for _, t := range c.idle {
		err = errors.Join(err, t.Close())
	}
	c.idle = nil // put closes the transports of the commands that continue
	return err
}

// await waits until ready returns true, and reports whether it does so in time. The caller
// holds mu.
func (c *Control) await(timeout time.Duration, ready func() bool) bool {
	if ready() {
		return true
	}
	over := false
	timer := time.AfterFunc(timeout, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		over = true
		c.freed.Broadcast()
	})
	defer timer.Stop()
	for !over && !ready() {
		c.freed.Wait()
	}
	return ready()
}

// openChar opens the character device of device id to serve it.
func (c *Control) openChar(id uint32) (int, error) {
	if c.chars != nil {
		return c.chars.OpenChar(id)
	}
	return openChar(CharPath(id))
}
