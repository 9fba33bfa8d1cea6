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
	"github.com/ublk-loop/ublk-loop/transfer"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// Hooks are called by Run. No function may be nil.
type Hooks struct {
	Prepare  func() error      // before the process loses its files
	Queues   func(n int) error // before the process serves n queues in all
	Settled  func()            // after Process.Settle
	Answered func()            // after each answer
}

// Nothing is a hook that does nothing. Its code stays resident.
func Nothing() {}

// Run is the process. It returns when the server has nothing more to do for it, or has ended.
func Run(h Hooks) error {
	s := socket{SocketFD}
	unix.CloseOnExec(s.fd)
	unix.CloseOnExec(extraFD)
	if err := errors.Join(s.say(errors.Join(sandbox.LimitThreads(), h.Prepare())), s.hear()); err != nil {
		return err
	}
	newRing, fds, err := enter()
	err = errors.Join(s.say(err, fds...), err)
	closeFDs(fds)
	if err != nil {
		return err
	}
	err = tryRing(newRing)
	if err := errors.Join(s.say(err), err); err != nil {
		return err
	}
	c := newChild(s, h, newRing)
	go func() { c.over <- c.receiveAll() }() // ends with the process
	return <-c.over
}

// servedDevice is a device that this process serves.
type servedDevice struct {
	*serving.Served
	last chan struct{} // closed when the last request with a turn has ended; child.mu protects it
}

// child is the process in the sandbox.
type child struct {
	socket  socket
	hooks   Hooks
	pools   *serving.Pools
	over    chan error // takes the result of Run
	newRing ublk.NewRing

	// sending is held during a send. Each goroutine in a send has a thread, which stays, and the server may ask for all devices
	// at once.
	sending sync.Mutex

	mu      sync.Mutex // protects what is below
	devices map[uint64]*servedDevice
	running map[uint64]context.CancelFunc // by request
	queues  int
}

func newChild(s socket, h Hooks, newRing ublk.NewRing) *child {
	c := &child{
		socket: s, hooks: h, newRing: newRing, over: make(chan error, 1),
		devices: make(map[uint64]*servedDevice), running: make(map[uint64]context.CancelFunc),
	}
	c.pools = serving.NewPools(c.fail, newRing)
	return c
}

// fail ends the process when threads of several devices have failed.
func (c *child) fail(err error) {
	c.send(reportOf(err))
	select {
	case c.over <- err:
	default: // one error is enough
	}
}

// receiveAll receives requests, and lets goroutines carry them out, until the server has no more.
func (c *child) receiveAll() error {
	for {
		r, fds, err := c.socket.receiveRequest(serving.MaxFDs)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil && !errors.Is(err, errNoRoom):
			return err
		case r.Settle:
			_ = unix.Close(extraFD)
			c.hooks.Settled()
		case r.Cancel:
			c.cancel(r.ID)
		default:
			c.start(&r, fds, err)
		}
	}
}

// start lets a goroutine carry out a request, or answer with the error with which it has come.
func (c *child) start(r *request, fds []int, err error) {
	key, keyErr := receiveKey(c.socket, r.KeyBytes)
	err = errors.Join(err, keyErr)
	switch {
	case err == nil && r.Work != nil:
		r.Work.FDs, r.Work.Key = fds, key
		ctx := c.begin(r.ID)
		go func() { c.answer(r, serving.Answer{}, c.serve(ctx, r)) }() // ends with its answer
	case err == nil && r.Request != nil:
		r.FDs = fds
		ctx := c.begin(r.ID)
		d, begin, end := c.turn(r)
		go func() { // ends with its answer
			<-begin
			defer close(end)
			answer, err := d.do(ctx, r)
			c.answer(r, answer, err)
		}()
	default:
		closeFDs(fds)
		if key != nil {
			key.Close()
		}
		go c.answer(r, serving.Answer{}, err)
	}
}

// send sends a report, unless the server ends.
func (c *child) send(r report) {
	c.sending.Lock()
	defer c.sending.Unlock()
	_ = c.socket.sendReport(r) // fails if the server ends
}

// answer sends the answer to a request.
func (c *child) answer(r *request, answer serving.Answer, err error) {
	c.cancel(r.ID)
	report := reportOf(err)
	report.ID, report.Answer = r.ID, &answer
	c.send(report)
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

// turn returns the device of a request, or nil, and when the request begins: the requests of a device that have
// a turn are carried out in the order in which they come. Otherwise what undoes a late request could come
// before it.
func (c *child) turn(r *request) (d *servedDevice, begin <-chan struct{}, end chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	end = make(chan struct{})
	if d = c.devices[r.Device]; d == nil || !r.Op.HasTurn() {
		return d, closed(), end
	}
	begin, d.last = d.last, end
	return d, begin, end
}

func closed() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}

// serve begins to serve a device.
func (c *child) serve(ctx context.Context, r *request) error {
	n := int(r.Work.Queues.Info.Queues)
	if err := c.hooks.Queues(c.addQueues(n)); err != nil {
		c.addQueues(-n)
		r.Work.Close()
		return err
	}
	r.Work.Queues.NewRing = c.newRing
	served, err := r.Work.Serve(ctx, c.pools)
	if err != nil {
		c.addQueues(-n)
		return err
	}
	c.mu.Lock()
	c.devices[r.Device] = &servedDevice{served, closed()}
	c.mu.Unlock()
	go c.wait(served, r.Device, n) // ends with the queues
	return nil
}

// wait tells the server what a device with some queues finds, and then how it has ended.
func (c *child) wait(served *serving.Served, device uint64, queues int) {
	served.Report(func(f serving.Finding) { c.send(report{Device: device, Found: &f}) })
	err := served.Wait()
	c.mu.Lock()
	delete(c.devices, device)
	c.mu.Unlock()
	c.addQueues(-queues)
	report := reportOf(err)
	report.Device = device
	c.send(report)
}

// addQueues adds to the number of queues, and returns it.
func (c *child) addQueues(n int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.queues += n
	return c.queues
}

// do carries out a request about a device. It is nil if the process does not have the device.
func (d *servedDevice) do(ctx context.Context, r *request) (serving.Answer, error) {
	if d == nil {
		closeFDs(r.FDs)
		return serving.Answer{}, fmt.Errorf("device %d of the process: %w", r.Device, unix.ENODEV)
	}
	return d.Answer(ctx, r.Request)
}

// receiveKey receives a key of n bytes into its own memory, see Process.send. It returns nil for no bytes.
func receiveKey(s socket, n int) (*transfer.Secret, error) {
	if n == 0 {
		return nil, nil
	}
	key, err := transfer.NewSecret(n)
	if err != nil {
		_, _, _ = s.receive(make([]byte, 1), 0) // the next message is not the key
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
