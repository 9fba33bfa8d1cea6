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
// Close is allowed in every state and leads to the last one. Leave is allowed in every
// state too, and the device stays without a server. A device ends when all its queues
// have ended, and Done closes then. Any goroutine may call the methods.
type Device struct {
	ctl        *Control  // nil in the process of an Apart
	cpus       []cpuMask // of each queue, in the process of an Apart, which cannot ask the driver
	info       Info
	mode       BufferMode
	untrusted  bool        // the driver must not trust the queues: see loseTrust
	recovers   bool        // taken over: its disk exists before Start
	counters   []*counters // of each queue
	threads    *Threads
	apart      Apart // serves the queues; nil for threads
	files      int   // of a queue
	extraParts int   // of a queue

	charFD int // /dev/ublkcN, -1 while it is not open
	queues []*Queue
	done   chan struct{}
	err    error // why the device ended; read it after done is closed

	mu      sync.Mutex // protects what is below
	started bool
	closed  bool
}

// Add makes a device: /dev/ublkcN, and no disk yet. It returns an error that wraps EEXIST
// if the id is taken, ErrNotSupported if the kernel does not offer the mode, and EPERM
// without CAP_SYS_ADMIN.
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

// modesToTry lists the modes that a wish allows, best first.
func modesToTry(wish BufferMode) []BufferMode {
	if wish == BufferFastest {
		return []BufferMode{BufferAutoRegister, BufferRegister, BufferCopy}
	}
	return []BufferMode{wish}
}

// add adds a device of one mode. It returns nil without an error if the driver does not
// offer the mode. The driver clears the features that it lacks in the device that it adds,
// so add looks there: before Linux 6.15 the list of features names some that do not work.
func (c *Control) add(opts Options, mode BufferMode) (*Device, error) {
	raw := opts.info(mode)
	if err := c.addDev(raw); err != nil {
		return nil, err
	}
	d := newDevice(c, infoOf(raw), RecoverOptions{
		NoPartScan: opts.NoPartScan, Threads: opts.Threads, Files: opts.Files, ExtraParts: opts.ExtraParts,
	})
	if d.mode != mode {
		return nil, d.Close()
	}
	return d, nil
}

// newDevice returns a device that the driver has, with the options of its server. c is nil in the
// process of an Apart.
func newDevice(c *Control, info Info, opts RecoverOptions) *Device {
	threads := opts.Threads
	if threads == nil {
		threads = ownThreads()
	}
	return &Device{
		ctl: c, info: info, mode: modeOf(info.Features), counters: newCounters(int(info.Queues)),
		untrusted: opts.NoPartScan && !info.Features.Has(uapi.UBLK_F_NO_AUTO_PART_SCAN),
		threads:   threads, files: orDefault(opts.Files, defaultFiles), extraParts: opts.ExtraParts,
		charFD: -1, done: make(chan struct{}),
	}
}

// Info returns what the driver granted when the device was added.
func (d *Device) Info() Info { return d.info }

// Now returns what the driver reports about the device's id now. Before Open, and after
// the device has ended, the id may be another device's. Options.Tag tells them apart.
func (d *Device) Now() (Info, error) { return d.ctl.Info(d.info.ID) }

// Mode returns where the bytes of requests live.
func (d *Device) Mode() BufferMode { return d.mode }

// BlockPath returns the path of the block device, which exists after Start.
func (d *Device) BlockPath() string { return BlockPath(d.info.ID) }

// BlockPath returns the path of the block device with an id.
func BlockPath(id uint32) string { return fmt.Sprintf("/dev/ublkb%d", id) }

// CharPath returns the path of the character device with an id, which its server opens.
func CharPath(id uint32) string { return fmt.Sprintf("/dev/ublkc%d", id) }

// SetParams describes the device to the block layer, once, before Start. A recovered
// device keeps its parameters: SetParams then returns an error that wraps EACCES.
func (d *Device) SetParams(p Params) error {
	p.setDefaults(d.info.MaxIOBytes)
	if err := p.validate(d.info.MaxIOBytes); err != nil {
		return fmt.Errorf("set parameters of device %d: %w: %w", d.info.ID, err, unix.EINVAL)
	}
	return d.ctl.setParams(d.info.ID, p.encode())
}

// Params returns the parameters that the driver has. They can differ from those set,
// because Control.UpdateSize changes the size.
func (d *Device) Params() (Params, error) { return d.ctl.Params(d.info.ID) }

// Open opens /dev/ublkcN. Start does so if Open was not called. From then on no other
// device gets the id until Close or Leave, even if another process deletes the device
// (ublk_cdev_rel in drivers/block/ublk_drv.c frees the id). After an error, call Close or
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

// Start serves the device with a target's handlers and makes its disk. The I/O of a
// recovered device goes on. When Start returns nil, /dev/ublkbN can be used. After an
// error, call Close or Leave.
func (d *Device) Start(target Target) error {
	return d.startBy(func() error { return d.startQueues(target) })
}

func (d *Device) startBy(serve func() error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.started || d.closed {
		return fmt.Errorf("start device %d: %w", d.info.ID, unix.EBUSY)
	}
	if err := d.open(); err != nil {
		return err
	}
	d.started = true
	if err := serve(); err != nil {
		d.kill()
		return fmt.Errorf("serve device %d: %w", d.info.ID, err)
	}
	if d.recovers {
		return d.ctl.endRecovery(d.info.ID)
	}
	return d.ctl.startDev(d.info.ID)
}

// startQueues finds a thread for each queue and returns when all queues have fetched their
// tags. No queue fetches before all are set up. If a process is killed during a recovery
// when only some queues have fetched, some kernels never end these commands (seen with
// Linux 6.18.15).
func (d *Device) startQueues(target Target) error {
	ended := make(chan error, d.info.Queues)
	err := d.takeThreads(ended)
	if err == nil {
		err = d.forQueues(func(q *Queue) error { return q.setUp(target) })
	}
	if err != nil {
		_ = d.forQueues(func(q *Queue) error { return q.leave(func() {}) })
		d.freeBuffers()
		close(d.done)
		return err
	}
	go d.wait(ended)
	return d.forQueues(func(q *Queue) error { return q.thread.do(q.fetchAll) })
}

// takeThreads makes the device's queues, each with a slot of a thread.
func (d *Device) takeThreads(ended chan<- error) error {
	for i := range d.info.Queues {
		cpus, err := d.affinity(i)
		if err != nil {
			return err
		}
		q := &Queue{dev: d, id: i, depth: int(d.info.Depth), mode: d.mode, counters: d.counters[i], ended: ended}
		q.thread, q.slot, err = d.threads.take(threadKind{
			cpus: cpus, depth: q.depth, mode: q.mode,
			files: d.files, extraParts: d.extraParts, untrusted: d.untrusted,
		})
		if err != nil {
			return err
		}
		d.queues = append(d.queues, q)
	}
	return nil
}

// forQueues calls a function for all queues at the same time, and waits for all calls. It
// returns the first error.
func (d *Device) forQueues(f func(*Queue) error) error {
	errs := make(chan error, len(d.queues))
	for _, q := range d.queues {
		go func() { errs <- f(q) }()
	}
	var first error
	for range d.queues {
		if err := <-errs; err != nil && first == nil {
			first = err
		}
	}
	return first
}

// wait owns the queues. It receives the end of each queue. When all have ended, it frees
// their buffers, closes the character device, and then done. If a queue ends with an error, wait kills the
// others: a Stop would wait for ever for the requests that the queue had. The driver fails
// these requests when the character device is closed.
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
	d.freeBuffers()
	if err := closeFD(&d.charFD); err != nil && d.err == nil {
		d.err = err
	}
	close(d.done)
}

// freeBuffers frees the buffers of all queues, which have ended.
func (d *Device) freeBuffers() {
	for _, q := range d.queues {
		q.freeBuffers()
	}
}

// kill makes every queue end at once, and does not answer its requests. The driver fails
// them when /dev/ublkcN is closed. Only the end of a ring takes its commands back from the
// driver, so kill does nothing if the threads also serve other devices.
func (d *Device) kill() {
	if !d.threads.alone {
		return
	}
	if d.apart != nil {
		d.apart.Kill()
		return
	}
	for _, q := range d.queues {
		q.thread.kill()
	}
}

// Done returns a channel that is closed when the device has ended: after a Stop by this
// process or another, or after an error.
func (d *Device) Done() <-chan struct{} { return d.done }

// Err returns why the device ended, nil after a Stop. It returns nil before Done is closed.
func (d *Device) Err() error {
	select {
	case <-d.done:
		return d.err
	default:
		return nil
	}
}
