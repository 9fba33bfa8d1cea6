package loop

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/identity"
	"github.com/ublk-loop/ublk-loop/loop/internal/backing"
	"github.com/ublk-loop/ublk-loop/loop/internal/process"
	"github.com/ublk-loop/ublk-loop/loop/internal/statefile"
	"github.com/ublk-loop/ublk-loop/transfer"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// The driver keeps 64 bits with a device. Ours are marked by the upper half,
// "ubl" and a version; the lower half is the server's process, known before
// there is a state file, and above its 22 bits (PID_MAX_LIMIT in
// linux/threads.h) a count, which tells a device from the next of the process
// with the same id.
const (
	tagMark    = 0x75626c01 << 32
	tagMask    = 0xffffffff << 32
	tagPIDBits = 22
)

// tagCount counts the devices of this process, modulo what a tag has room for.
var tagCount atomic.Uint32

// newTag returns the mark of another device of this process.
func newTag() uint64 {
	return tagMark | uint64(tagCount.Add(1)<<tagPIDBits|uint32(os.Getpid()))
}

// tagPID returns the process that made a device of ours.
func tagPID(tag uint64) int { return int(tag & (1<<tagPIDBits - 1)) }

// isOurs reports whether a device was made by ublk-loop.
func isOurs(info *ublk.Info) bool { return info.Tag&tagMask == tagMark }

// Device is a file or disk that this process serves as a block device.
type Device struct {
	dev      *ublk.Device
	b        *backing.Backing
	transfer transfer.Transfer // nil for none
	status   Status
	many     bool // the process serves other devices, too
	closed   atomic.Bool
	// background is what ends by itself once closed is set. It uses b.
	background sync.WaitGroup

	closing sync.Mutex // protects what is below
	removed bool       // Close has nothing more to do
}

// Attach makes a device of a file from OpenPath and serves it. When it returns
// nil the device can be opened; after an error nothing of it is left. The
// caller keeps file and may close it; cfg.Key is closed in any case.
func Attach(ctl *ublk.Control, file *os.File, cfg Config) (*Device, error) {
	return attachOn(ctl, file, cfg, nil)
}

func attachOn(ctl *ublk.Control, file *os.File, cfg Config, shared *threads) (*Device, error) {
	defer func() {
		if cfg.Key != nil {
			cfg.Key.Close()
		}
	}()
	b, err := openBacking(file, &cfg)
	if err != nil {
		return nil, err
	}
	d := &Device{b: b, many: shared != nil}
	if d.transfer, err = newTransfer(b, &cfg); err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", b.Path, err), b.Close())
	}
	if d.dev, err = addDevice(ctl, b, &cfg, shared); err != nil {
		return nil, errors.Join(err, d.closeTransfer(), b.Close())
	}
	if err := d.start(&cfg, &target{b: b, transfer: d.transfer}); err != nil {
		return nil, errors.Join(err, d.remove())
	}
	d.background.Go(func() { d.b.DropCache(d.closed.Load) })
	return d, nil
}

// addDevice adds a device in the best buffer mode that the kernel offers and
// the configuration allows.
func addDevice(ctl *ublk.Control, b *backing.Backing, cfg *Config, shared *threads) (*ublk.Device, error) {
	modes, err := bufferModes(cfg)
	if err != nil {
		return nil, err
	}
	features, err := cfg.crashFeatures()
	if err != nil {
		return nil, err
	}
	for _, mode := range modes {
		opts := ublk.Options{
			ID: cfg.ID, Queues: cfg.Queues, Depth: cfg.Depth, Mode: mode,
			MaxIOBytes: b.MaxIOBytes(mode), Tag: newTag(), NoPartScan: !cfg.PartScan,
			Features: features, Threads: shared.of(b),
		}
		var dev *ublk.Device
		if dev, err = ctl.Add(opts); err == nil {
			return dev, checkCrashFeatures(dev, features)
		}
		if !errors.Is(err, ublk.ErrNotSupported) {
			return nil, err
		}
	}
	return nil, err
}

// bufferModes lists the modes that a wish for zero copy allows, best first. A
// transfer needs the copy to work on.
func bufferModes(cfg *Config) ([]ublk.BufferMode, error) {
	zeroCopy := cfg.ZeroCopy
	if !cfg.Transfer.isNone() {
		zeroCopy = SwitchOff
	}
	switch zeroCopy {
	case SwitchOn:
		return []ublk.BufferMode{ublk.BufferAutoRegister, ublk.BufferRegister}, nil
	case SwitchOff:
		return []ublk.BufferMode{ublk.BufferCopy}, nil
	case SwitchAuto, "":
		return []ublk.BufferMode{ublk.BufferAutoRegister, ublk.BufferRegister, ublk.BufferCopy}, nil
	}
	return nil, fmt.Errorf("zero copy %q: not auto, on or off: %w", zeroCopy, unix.EINVAL)
}

// start describes an added device to the driver and to list, and starts it.
func (d *Device) start(cfg *Config, t ublk.Target) error {
	if err := d.prepare(cfg); err != nil {
		return err
	}
	return d.dev.Start(t)
}

// prepare describes an added device. The state is written before it is started:
// a device is never there without saying what for. Until it is open it has its
// id only for as long as nobody removes it, as del does with the lock.
func (d *Device) prepare(cfg *Config) error {
	lock, err := statefile.Acquire(d.ID())
	if err != nil {
		return err
	}
	defer lock.Release()
	if _, err := d.now(); err != nil {
		return err
	}
	info := d.dev.Info()
	params, err := d.b.Params(d.dev.Mode(), info.MaxIOBytes)
	if err != nil {
		return err
	}
	if err := d.dev.SetParams(params); err != nil {
		return err
	}
	d.status = d.describe(cfg)
	d.status.Limits = limitsOf(&params)
	if err := d.writeState(cfg); err != nil {
		return err
	}
	return d.dev.Open()
}

// now returns what the driver tells of the device. It returns an error that
// wraps ENODEV where the device has been removed, whoever has its id by then.
func (d *Device) now() (ublk.Info, error) {
	info, err := d.dev.Now()
	if err == nil && d.isOther(&info) {
		err = fmt.Errorf("%s is another device by now: %w", d.Path(), unix.ENODEV)
	}
	return info, err
}

// isOther reports whether something with the device's id is not the device.
func (d *Device) isOther(info *ublk.Info) bool { return info.Tag != d.dev.Info().Tag }

// writeState is called with the lock of the state.
func (d *Device) writeState(cfg *Config) error {
	start, err := process.StartTime(os.Getpid())
	if err != nil {
		return err
	}
	s := state{StartTime: start, FileBirth: identity.Birth(d.b.FD), ManyDevices: d.many, Config: *cfg, Status: &d.status}
	if d.transfer != nil {
		s.KeyCheck = keyCheck(&cfg.Transfer, d.transfer, d.b.TransferSize)
	}
	return s.write()
}

// ID returns the device's number.
func (d *Device) ID() uint32 { return d.dev.Info().ID }

// Path returns the block device's path.
func (d *Device) Path() string { return d.dev.BlockPath() }

// Status returns what `list` shows of the device, as of its start but for the
// size: another process may have changed that (Resize), so it is the driver's.
func (d *Device) Status() Status {
	s := d.status
	if params, err := d.dev.Params(); err == nil {
		s.Size = params.DevSectors << 9
	}
	s.State = ublk.StateLive.String()
	s.MajMin = blockNumber(s.ID)
	return s
}

// keep takes from the device that it goes when nobody uses it. It returns an
// error that wraps ENODEV for one that has no disk any more.
func (d *Device) keep() error {
	lock, err := statefile.Acquire(d.ID())
	if err != nil {
		return err
	}
	defer lock.Release()
	info, err := d.now()
	if err != nil {
		return err
	}
	if d.isDone() || info.State != ublk.StateLive {
		return fmt.Errorf("keep %s: it has been removed: %w", d.Path(), unix.ENODEV)
	}
	saved, err := readState(d.ID())
	if err != nil {
		return err
	}
	if saved == nil {
		return fmt.Errorf("keep %s: its state is gone: %w", d.Path(), unix.ENOENT)
	}
	saved.Config.Autoclear, saved.Status.Autoclear = false, false
	return saved.write()
}

// Done returns a channel that is closed when the device is served no more.
func (d *Device) Done() <-chan struct{} { return d.dev.Done() }

func (d *Device) isDone() bool {
	select {
	case <-d.Done():
		return true
	default:
		return false
	}
}

// Err returns why the device ended, nil for an orderly end, once Done is
// closed.
func (d *Device) Err() error { return d.dev.Err() }

// Close stops the device, waits until its last request is answered, and
// removes all of it. A device that outlives its server (OnCrash) and has failed
// is left to another, as if this process had been killed. It may be called
// again, which after an error that wraps ublk.ErrServed is another attempt: the
// device is as it was then.
func (d *Device) Close() error {
	d.closed.Store(true)
	d.background.Wait()
	d.closing.Lock()
	defer d.closing.Unlock()
	if d.removed {
		return nil
	}
	err := d.close()
	d.removed = !errors.Is(err, ublk.ErrServed)
	return err
}

func (d *Device) close() error {
	if d.Err() != nil && d.isRecoverable() {
		return errors.Join(d.dev.Leave(), d.closeTransfer(), d.b.Close())
	}
	return d.remove()
}

// remove stops the device and removes all of it.
func (d *Device) remove() error {
	lock, err := statefile.Acquire(d.ID())
	if err == nil {
		defer lock.Release()
	}
	end := d.dev.End()
	if errors.Is(end, ublk.ErrServed) {
		return end // with all that its queues may need
	}
	if end == nil && d.Err() == nil {
		d.b.Unlock()
	}
	return errors.Join(err, end, d.removeRest(), d.closeTransfer(), d.b.Close())
}

// removeRest removes a device that has ended, and its state before that: then
// the id can be another's. It may be so already, where somebody else has removed
// the device, and is left alone then.
func (d *Device) removeRest() error {
	info, err := d.dev.Now()
	switch {
	case err == nil && d.isOther(&info):
		return d.dev.Leave()
	case errors.Is(err, unix.ENODEV): // who gets the id next writes a state with the lock that we have
		return errors.Join(statefile.Remove(d.ID()), d.dev.Leave())
	}
	return errors.Join(statefile.Remove(d.ID()), d.dev.Close())
}

// closeTransfer wipes the key, once no queue is there to use it.
func (d *Device) closeTransfer() error {
	if d.transfer == nil {
		return nil
	}
	return d.transfer.Close()
}
