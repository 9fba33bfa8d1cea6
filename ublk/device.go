package ublk

import (
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk/uapi"
)

// Device is a block device served by this process.
//
//	Add, Recover -> added -> Start -> live -> Stop, or the server's end -> ended -> Close -> deleted
//
// Close is allowed in every state and ends in the last; Leave is too, and ends
// with a device that this process does not serve. A device ends when all
// its queues have; Done tells. Methods may be called from any goroutine.
type Device struct {
	ctl       *Control
	info      Info
	mode      BufferMode
	untrusted bool        // the driver must not trust the queues: see loseTrust
	recovers  bool        // taken over: its disk is there before Start
	counters  []*counters // of each queue
	threads   *Threads

	charFD int // -1 unless the device is served, or is about to be
	queues []*Queue
	done   chan struct{}
	err    error // why the device ended; read after done

	mu      sync.Mutex // protects what is below
	started bool
	closed  bool
}

// Add makes a device: /dev/ublkcN, and no disk yet. It returns an error that
// wraps EEXIST when the id is taken, ErrNotSupported when the kernel does not
// offer the mode, EPERM without CAP_SYS_ADMIN.
func (c *Control) Add(opts Options) (*Device, error) {
	if err := opts.validate(); err != nil {
		return nil, fmt.Errorf("add device: %w", err)
	}
	for _, mode := range modesToTry(opts.Mode) {
		d, err := c.add(opts, mode)
		if err != nil || d != nil {
			return d, err
		}
	}
	return nil, fmt.Errorf("add device: buffer mode %v: %w", opts.Mode, ErrNotSupported)
}

// modesToTry lists the modes that fulfil a wish, best first.
func modesToTry(wish BufferMode) []BufferMode {
	if wish == BufferFastest {
		return []BufferMode{BufferAutoRegister, BufferRegister, BufferCopy}
	}
	return []BufferMode{wish}
}

// add adds a device of one mode; nil without an error says that the driver
// does not offer it. The driver leaves out of a device what it cannot do, so
// the device tells; what it offers in general says too much before Linux 6.15.
func (c *Control) add(opts Options, mode BufferMode) (*Device, error) {
	raw := opts.info(mode)
	if err := c.addDev(raw); err != nil {
		return nil, err
	}
	d := newDevice(c, infoOf(raw), opts.Threads)
	d.untrusted = opts.NoPartScan && !d.info.Features.Has(uapi.UBLK_F_NO_AUTO_PART_SCAN)
	if d.mode != mode {
		return nil, d.Close()
	}
	return d, nil
}

func newDevice(c *Control, info Info, threads *Threads) *Device {
	if threads == nil {
		threads = ownThreads()
	}
	return &Device{
		ctl: c, info: info, mode: modeOf(info.Features), counters: newCounters(int(info.Queues)),
		threads: threads, charFD: -1, done: make(chan struct{}),
	}
}

// Info returns what the driver made of the options.
func (d *Device) Info() Info { return d.info }

// Now returns what the driver tells of the device's id now. Until Open, and once
// it has ended, that may be another device: Options.Tag tells.
func (d *Device) Now() (Info, error) { return d.ctl.Info(d.info.ID) }

// Mode returns where the bytes of requests live.
func (d *Device) Mode() BufferMode { return d.mode }

// BlockPath returns the path of the block device, which exists from Start on.
func (d *Device) BlockPath() string { return BlockPath(d.info.ID) }

// BlockPath returns the path of the block device with an id.
func BlockPath(id uint32) string { return fmt.Sprintf("/dev/ublkb%d", id) }

// CharPath returns the path of the character device that a server of device id
// opens.
func CharPath(id uint32) string { return fmt.Sprintf("/dev/ublkc%d", id) }

// SetParams describes the device to the block layer, once, before Start. A
// device that was recovered has its parameters, and takes no others (EACCES).
func (d *Device) SetParams(p Params) error {
	p.setDefaults(d.info.MaxIOBytes)
	if err := p.validate(d.info.MaxIOBytes); err != nil {
		return fmt.Errorf("set parameters of device %d: %w: %w", d.info.ID, err, unix.EINVAL)
	}
	return d.ctl.setParams(d.info.ID, p.encode())
}

// Params returns the parameters that the driver has, which may be others than
// were set: Control.UpdateSize changes one.
func (d *Device) Params() (Params, error) { return d.ctl.Params(d.info.ID) }

// Open opens /dev/ublkcN, which Start does where it has not been done: from then
// on the id is the device's until Close or Leave, whoever deletes the device
// (ublk_cdev_rel in drivers/block/ublk_drv.c frees it). After an error, Close or
// Leave.
func (d *Device) Open() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.started || d.closed {
		return fmt.Errorf("open device %d: %w", d.info.ID, unix.EBUSY)
	}
	return d.open()
}

func (d *Device) open() error {
	if d.charFD >= 0 {
		return nil
	}
	var err error
	d.charFD, err = d.ctl.openChar(d.info.ID)
	return err
}

// Start serves the device with a target's handlers and makes its disk, or lets
// the I/O of one that was recovered go on: when it returns nil, /dev/ublkbN can
// be used. After an error, Close or Leave.
func (d *Device) Start(target Target) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.started || d.closed {
		return fmt.Errorf("start device %d: %w", d.info.ID, unix.EBUSY)
	}
	if err := d.open(); err != nil {
		return err
	}
	d.started = true
	if err := d.startQueues(target); err != nil {
		d.kill()
		return fmt.Errorf("serve device %d: %w", d.info.ID, err)
	}
	if d.recovers {
		return d.ctl.endRecovery(d.info.ID)
	}
	return d.ctl.startDev(d.info.ID)
}

// startQueues finds each queue a thread and returns when all have fetched their
// tags. They do that together, when all are set up: a process that is killed
// while some are fetched and others not, in a recovery, leaves commands that
// some kernels never end (seen with Linux 6.18.15).
func (d *Device) startQueues(target Target) error {
	ended := make(chan error, d.info.Queues)
	err := d.takeThreads(ended)
	if err == nil {
		err = d.onThreads(func(q *Queue) error { return q.setUp(target) })
	}
	if err != nil {
		_ = d.onThreads(func(q *Queue) error { q.drop(); return nil })
		close(d.done)
		return err
	}
	go d.wait(ended)
	return d.onThreads((*Queue).fetchAll)
}

// takeThreads makes the device's queues, each with its place on a thread.
func (d *Device) takeThreads(ended chan<- error) error {
	for i := range d.info.Queues {
		cpus, err := d.ctl.queueAffinity(d.info.ID, i)
		if err != nil {
			return err
		}
		q := &Queue{dev: d, id: i, depth: int(d.info.Depth), mode: d.mode, counters: d.counters[i], ended: ended}
		q.thread, q.slot, err = d.threads.take(threadKind{cpus, q.depth, q.mode, d.untrusted})
		if err != nil {
			return err
		}
		d.queues = append(d.queues, q)
	}
	return nil
}

// onThreads calls a function for each queue, on its thread, and waits for all.
// It returns the first error.
func (d *Device) onThreads(f func(*Queue) error) error {
	errs := make(chan error, len(d.queues))
	for _, q := range d.queues {
		go func() { errs <- q.thread.do(func() error { return f(q) }) }()
	}
	var first error
	for range d.queues {
		if err := <-errs; err != nil && first == nil {
			first = err
		}
	}
	return first
}

// wait owns the queues: it takes the end of each, and closes the character
// device and then done when all have ended. The error of one ends the others,
// which would wait for ever for the requests that it had; these the driver
// fails at that close, which a Stop that is under way may wait for.
func (d *Device) wait(ended <-chan error) {
	for range d.queues {
		err := <-ended
		if err == nil {
			continue
		}
		if d.err == nil || errors.Is(d.err, ErrKilled) {
			d.err = err
		}
		d.kill()
	}
	if err := closeFD(&d.charFD); err != nil && d.err == nil {
		d.err = err
	}
	close(d.done)
}

// kill makes every queue stop at once, its requests unanswered: the driver
// fails them when /dev/ublkcN is closed. A ring's end is what takes its commands
// back from the driver, so queues on threads with others' stay as they are.
func (d *Device) kill() {
	if !d.threads.alone {
		return
	}
	for _, q := range d.queues {
		q.thread.kill()
	}
}

// Done returns a channel that is closed when the device is served no more:
// after Stop, by this process or another, or after an error.
func (d *Device) Done() <-chan struct{} { return d.done }

// Err returns why the device ended, nil for an orderly end, once Done is
// closed.
func (d *Device) Err() error {
	select {
	case <-d.done:
		return d.err
	default:
		return nil
	}
}
