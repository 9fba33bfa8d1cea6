package apart

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/sandbox"
	"github.com/ublk-loop/ublk-loop/loop/serving"
	"github.com/ublk-loop/ublk-loop/ring"
	"github.com/ublk-loop/ublk-loop/transfer"
)

// Hooks are called by Run. None may be nil.
type Hooks struct {
	Prepare  func() error      // before the process loses its files
	Queues   func(n int) error // before the process serves n queues in all
	Settled  func()            // after Process.Settle
	Answered func()            // after each answer
}

// Run is the process. It returns when the server has nothing more to do for it, or has ended.
func Run(h Hooks) error {
	s := socket{SocketFD}
	unix.CloseOnExec(s.fd)
	unix.CloseOnExec(lifelineFD)
	if err := errors.Join(s.say(h.Prepare()), s.hear()); err != nil {
		return err
	}
	err := sandbox.Enter()
	if err == nil {
		err = makeRing()
	}
	if err := errors.Join(s.say(err), err); err != nil {
		return err
	}
	c := newChild(s, h)
	go func() { c.over <- c.receiveAll() }() // ends with the process
	return <-c.over
}

// makeRing makes a ring and closes it. It fails if the kernel makes rings only for privileged
// processes (kernel.io_uring_disabled).
func makeRing() error {
	r, err := ring.New(ring.Options{Entries: 1})
	if err != nil {
		return err
	}
	return r.Close()
}

// child is the process in the sandbox.
type child struct {
	socket socket
	hooks  Hooks
	pools  *serving.Pools
	over   chan error // takes the result of Run

	mu      sync.Mutex // protects what is below
	devices map[uint64]*serving.Served
	running map[uint64]context.CancelFunc // by request
	queues  int
}

func newChild(s socket, h Hooks) *child {
	c := &child{
		socket: s, hooks: h, over: make(chan error, 1), devices: make(map[uint64]*serving.Served), running: make(map[uint64]context.CancelFunc),
	}
	c.pools = serving.NewPools(c.fail)
	return c
}

// fail ends the process when threads of several devices have failed.
func (c *child) fail(err error) {
	_ = c.socket.say(err) // fails if the server ends
	select {
	case c.over <- err:
	default: // one error is enough
	}
}

// receiveAll receives requests, and lets goroutines carry them out, until the server has no more.
func (c *child) receiveAll() error {
	for {
		var r request
		fds, err := c.socket.receiveObject(&r, serving.MaxFDs)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case r.Settle:
			_ = unix.Close(lifelineFD)
			c.hooks.Settled()
		case r.Cancel:
			c.cancel(r.ID)
		case r.Work != nil:
			r.Work.FDs = fds
			if r.KeyBytes != 0 {
				if r.Work.Key, err = receiveKey(c.socket, r.KeyBytes); err != nil {
					return err
				}
			}
			go func() { c.answer(&r, serving.Answer{}, c.serve(&r)) }() // ends with its answer
		case r.Request != nil:
			r.FDs = fds
			ctx := c.begin(r.ID)
			go func() { // ends with its answer
				answer, err := c.do(ctx, &r)
				c.answer(&r, answer, err)
			}()
		}
	}
}

// answer sends the answer to a request.
func (c *child) answer(r *request, answer serving.Answer, err error) {
	c.cancel(r.ID)
	report := reportOf(err)
	report.ID, report.Answer = r.ID, &answer
	_ = c.socket.sendReport(report) // fails if the server ends
	c.hooks.Answered()
}

// begin returns the context of a request.
func (c *child) begin(id uint64) context.Context {
	ctx, end := context.WithCancel(context.Background())
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running[id] = end
	return ctx
}

// cancel ends the context of a request.
func (c *child) cancel(id uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if end := c.running[id]; end != nil {
		end()
		delete(c.running, id)
	}
}

// serve begins to serve a device.
func (c *child) serve(r *request) error {
	n := int(r.Work.Queues.Info.Queues)
	err := c.hooks.Queues(c.addQueues(n))
	var served *serving.Served
	if err == nil {
		served, err = r.Work.Serve(c.pools)
	}
	if err != nil {
		c.addQueues(-n)
		return err
	}
	c.mu.Lock()
	c.devices[r.Device] = served
	c.mu.Unlock()
	go served.Report(func(f serving.Finding) { _ = c.socket.sendReport(report{Device: r.Device, Found: &f}) }) // ends with the queues
	go func() {                                                                                                // ends with the queues
		err := served.Wait()
		c.mu.Lock()
		delete(c.devices, r.Device)
		c.mu.Unlock()
		c.addQueues(-n)
		report := reportOf(err)
		report.Device = r.Device
		_ = c.socket.sendReport(report) // fails if the server ends
	}()
	return nil
}

// addQueues adds to the number of queues, and returns it.
func (c *child) addQueues(n int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.queues += n
	return c.queues
}

// do carries out a request about a device.
func (c *child) do(ctx context.Context, r *request) (serving.Answer, error) {
	c.mu.Lock()
	served := c.devices[r.Device]
	c.mu.Unlock()
	if served == nil {
		for _, fd := range r.FDs {
			_ = unix.Close(fd)
		}
		return serving.Answer{}, fmt.Errorf("device %d of the process: %w", r.Device, unix.ENODEV)
	}
	return served.Answer(ctx, r.Request)
}

// receiveKey receives a key of n bytes into its own memory, see Process.send.
func receiveKey(s socket, n int) (*transfer.Secret, error) {
	key, err := transfer.NewSecret(n)
	if err != nil {
		return nil, err
	}
	got, _, err := s.receive(key.Bytes(), 0)
	if err == nil && got != n {
		err = fmt.Errorf("a key of %d bytes, not of %d: %w", got, n, unix.EBADMSG)
	}
	if err != nil {
		key.Close()
		return nil, err
	}
	return key, nil
}
