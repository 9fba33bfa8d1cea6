package ublk

import (
	"errors"
	"fmt"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// Options says what device to add. The zero value is a device with the first
// free id, one queue a CPU, 128 tags a queue, and the fastest buffer mode.
type Options struct {
	// ID is the device's number, below 2^20; nil for the first free one.
	ID *uint32
	// Queues is the number of queues, 1 to 4096; the driver makes no more than
	// there are CPUs. 0 means one a CPU.
	Queues int
	// Depth is the number of tags of a queue, 1 to 4096. 0 means 128, and 64
	// in copy mode.
	Depth int
	// MaxIOBytes is the largest request, rounded down to a page: from a page
	// to 32 MiB. 0 means 1 MiB, and 256 KiB in copy mode, where each tag has
	// a buffer of that size in memory.
	MaxIOBytes uint32
	// Mode is where the bytes of requests live. A mode that the kernel does
	// not offer is an error, BufferDefault takes the best that it offers.
	Mode BufferMode
	// NoPartScan keeps the kernel from looking for partitions when the device
	// starts. Where the driver cannot be told so (UBLK_F_NO_AUTO_PART_SCAN,
	// Linux 7.0) the queues' threads give up CAP_SYS_ADMIN for it, and a later
	// BLKRRPART fails with EINVAL.
	NoPartScan bool
	// Features are further ones to ask for: those among UBLK_F_… that change
	// nothing for a server. The driver leaves out those it does not know.
	Features Features
	// Tag is kept with the device by the driver, to know one's own by.
	Tag uint64
	// Threads serve the queues, together with those of other devices; nil for a
	// thread of its own for each queue.
	Threads *Threads
}

const (
	defaultDepth      = 128
	defaultMaxIOBytes = 1 << 20
	// Copy mode pins depth × size bytes a queue: 16 MiB with these.
	defaultCopyDepth      = 64
	defaultCopyMaxIOBytes = 256 << 10
	maxIOBytesLimit       = 1 << UBLK_IO_BUF_BITS
)

func (o *Options) validate() error {
	switch {
	case o.Queues < 0 || o.Queues > UBLK_MAX_NR_QUEUES:
		return fmt.Errorf("%d queues: not from 1 to %d: %w", o.Queues, UBLK_MAX_NR_QUEUES, unix.EINVAL)
	case o.Depth < 0 || o.Depth > UBLK_MAX_QUEUE_DEPTH:
		return fmt.Errorf("queue depth %d: not from 1 to %d: %w", o.Depth, UBLK_MAX_QUEUE_DEPTH, unix.EINVAL)
	case o.MaxIOBytes != 0 && (o.MaxIOBytes < uint32(unix.Getpagesize()) || o.MaxIOBytes > maxIOBytesLimit):
		return fmt.Errorf("largest request of %d bytes: not from a page to %d: %w", o.MaxIOBytes, maxIOBytesLimit, unix.EINVAL)
	}
	return nil
}

// info returns what ADD_DEV is given for a mode.
func (o *Options) info(mode BufferMode) *ublksrvCtrlDevInfo {
	info := &ublksrvCtrlDevInfo{
		DevID:         anyDevice,
		NrHwQueues:    uint16(orDefault(o.Queues, min(runtime.NumCPU(), UBLK_MAX_NR_QUEUES))),
		MaxIOBufBytes: orDefault(o.MaxIOBytes, defaultMaxIOBytes),
		QueueDepth:    uint16(orDefault(o.Depth, defaultDepth)),
		Flags:         uint64(mode.features() | o.Features),
		UblksrvFlags:  o.Tag,
	}
	if mode == BufferCopy {
		info.MaxIOBufBytes = orDefault(o.MaxIOBytes, defaultCopyMaxIOBytes)
		info.QueueDepth = uint16(orDefault(o.Depth, defaultCopyDepth))
	}
	if o.NoPartScan {
		info.Flags |= UBLK_F_NO_AUTO_PART_SCAN
	}
	if o.ID != nil {
		info.DevID = *o.ID
	}
	return info
}

func orDefault[T int | uint32](v, def T) T {
	if v == 0 {
		return def
	}
	return v
}

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
	if wish == BufferDefault {
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
	d.untrusted = opts.NoPartScan && !d.info.Features.Has(UBLK_F_NO_AUTO_PART_SCAN)
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

// Stop removes the disk. Dirty pages are written first, so the queues serve on
// until it returns; then they end, and Done closes.
func (d *Device) Stop() error {
	return d.ctl.Stop(d.info.ID)
}

// Close stops the device if it is live, waits until its queues have ended, and
// deletes it: nothing of it is left but, until they close it, what those who
// have the disk open hold on to. It may be called again.
func (d *Device) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil
	}
	err := d.end()
	if errors.Is(err, ErrServed) {
		return err
	}
	d.closed = true
	return errors.Join(err, closeFD(&d.charFD), ignoreGone(d.ctl.Delete(d.info.ID)))
}

// End stops the device if it is live and waits until its queues have ended. Its
// id stays its own until Close, which does this too. The error of both wraps
// ErrServed where the driver does not stop a device on Threads: it is as it was
// then.
func (d *Device) End() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil
	}
	return d.end()
}

func (d *Device) end() error {
	if !d.started {
		return nil
	}
	var err error
	select {
	case <-d.done: // a device whose queues have ended has nobody to flush to
	default:
		if err = ignoreGone(d.Stop()); err == nil {
			break
		}
		if !d.threads.alone {
			return fmt.Errorf("%w: %w", ErrServed, err)
		}
		d.kill() // nothing else would end the queues
	}
	<-d.done
	return err
}

// ignoreGone drops the errors that say that a device is gone, as was to be
// reached.
func ignoreGone(err error) error {
	if errors.Is(err, unix.ENODEV) || errors.Is(err, ErrLingers) {
		return nil
	}
	return err
}

func closeFD(fd *int) error {
	if *fd < 0 {
		return nil
	}
	err := unix.Close(*fd)
	*fd = -1
	return err
}
