package loop

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/process"
	"github.com/ublk-loop/ublk-loop/loop/internal/backing"
	"github.com/ublk-loop/ublk-loop/loop/internal/stack"
	"github.com/ublk-loop/ublk-loop/loop/internal/statefile"
	"github.com/ublk-loop/ublk-loop/loop/internal/target"
	"github.com/ublk-loop/ublk-loop/transfer"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// Device is a file or disk that this process serves as a block device.
type Device struct {
	dev      *ublk.Device
	storage  storage
	b        *backing.Backing  // the storage, if it is one file or disk
	stack    *stack.Stack      // the storage, if it is a stack of tables
	ctl      *ublk.Control     // nil for a device of one file
	transfer transfer.Transfer // nil for none
	apart    *apartTarget      // nil if this process serves the requests
	// key is a copy of the key, for the program that replaces a server of many devices. It is
	// nil for a device without a key, and in a process of one device.
	key    *transfer.Secret
	status Status
	many   bool // the process also serves other devices
	// copyReason is Status.CopyReason of a new device.
	copyReason string
	closed     atomic.Bool
	locking    atomic.Int32                 // calls of lockState
	forked     atomic.Pointer[forkedStatus] // what Fork and Reload have changed in status; nil for nothing
	// background waits for goroutines that use b. They end when closed is set.
	background sync.WaitGroup

	forking sync.Mutex // held by Fork and Reload
	// warnings receives the lines of Warnings; nil for a device without verity and stores.
	warnings chan string

	asking  sync.Mutex   // held while ask queries the file, and by Reload
	syncing sync.Mutex   // held while a fork writes the file to the medium
	saving  sync.Mutex   // held while records are saved during a hold
	holding patientMutex // held while the device keeps its requests (hold)
	merging sync.Mutex   // held by Merge, Fork and Reload

	closing sync.Mutex // protects removed
	removed bool       // Close has finished
}

// Attach makes a device of a file from OpenPath and serves it. When it returns nil, the
// device can be opened. After an error, the device is completely removed. The caller
// keeps file and may close it. Attach closes cfg.Key in any case.
func Attach(ctl *ublk.Control, file *os.File, cfg Config) (*Device, error) {
	return attachOn(ctl, file, cfg, nil, nil)
}

// attachOn attaches a device whose requests threads of this process serve, or another process
// if apart is not nil.
func attachOn(ctl *ublk.Control, file *os.File, cfg Config, shared *threads, apart Apart) (*Device, error) {
	if cfg.Key != nil {
		defer cfg.Key.Close()
	}
	b, err := openNew(ctl, file, &cfg, shared)
	if err != nil {
		return nil, err
	}
	d := deviceOfFile(b, &cfg, shared, apart)
	defer d.apart.forgetKey()
	if err := d.makeTransfer(&cfg); err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", b.Path, err), d.closeTransfer(), d.storage.Close())
	}
	return d.attach(ctl, &cfg, shared)
}

// deviceOfFile returns a device of one file, which has neither its key nor a number yet.
func deviceOfFile(b *backing.Backing, cfg *Config, shared *threads, apart Apart) *Device {
	d := &Device{b: b, storage: b, many: shared != nil, apart: newApartTarget(apart, cfg)}
	d.apart.ofFile(b, &cfg.Transfer)
	return d
}

// attach adds and starts a device that has its storage and its key. After an error it has closed the
// storage, and the device is completely removed.
func (d *Device) attach(ctl *ublk.Control, cfg *Config, shared *threads) (*Device, error) {
	var err error
	if d.dev, d.copyReason, err = addDevice(ctl, d.storage, cfg, d.optionsOn(shared, cfg.Depth)); err != nil {
		return nil, errors.Join(err, d.closeTransfer(), d.storage.Close())
	}
	err = d.start(cfg, d.target(cfg.Depth))
	if err == nil && d.stack != nil && d.stack.Checks() {
		err = d.keepApart()
	}
	if err != nil {
		return nil, errors.Join(err, d.remove())
	}
	d.watch()
	return d, nil
}

// target returns what serves the requests in threads of this process.
func (d *Device) target(depth int) ublk.Target {
	if s := d.stack; s != nil {
		return &stack.Target{Stack: s, ExtraParts: s.ExtraParts(depth)}
	}
	return &target.Target{Backing: d.b, Transfer: d.transfer}
}

// dropCache drops the pages of the storage from the page cache in the background, until the device is closed. The code of the
// method value d.closed.Load would belong to no package, and so could be given back (confine.Program.GiveBack).
func (d *Device) dropCache() {
	d.background.Go(d.storage.DropCache(func() bool { return d.closed.Load() }))
}

// addDevice adds a device in the best buffer mode that the kernel offers and the
// configuration allows. further returns options for a mode, or is nil. addDevice also
// returns Status.CopyReason.
func addDevice(ctl *ublk.Control, of storage, cfg *Config, further func(ublk.BufferMode) ublk.Options) (*ublk.Device, string, error) {
	may, err := chooseBuffers(of, cfg)
	if err != nil {
		return nil, "", err
	}
	features, err := cfg.crashFeatures()
	if err != nil {
		return nil, "", err
	}
	for _, mode := range may.modes {
		var opts ublk.Options
		if further != nil {
			opts = further(mode)
		}
		opts.ID, opts.Queues, opts.Depth, opts.Mode = cfg.ID, cfg.Queues, cfg.Depth, mode
		opts.MaxIOBytes, opts.Tag, opts.NoPartScan = of.MaxIOBytes(mode), newTag(), !cfg.PartScan
		opts.Features |= features
		var dev *ublk.Device
		if dev, err = ctl.Add(opts); err == nil {
			return dev, may.reasonFor(mode), checkCrashFeatures(dev, features)
		}
		if !errors.Is(err, ublk.ErrNotSupported) {
			return nil, "", err
		}
	}
	return nil, "", err
}

// start writes the state and parameters of an added device, and starts the device.
func (d *Device) start(cfg *Config, t ublk.Target) error {
	if err := d.prepare(cfg); err != nil {
		return err
	}
	return d.serve(t)
}

// serve starts to serve the requests of the device. t is not used if another process does that.
func (d *Device) serve(t ublk.Target) error {
	if d.apart == nil {
		return d.dev.Start(t)
	}
	if d.many {
		pool := poolOf(d.dev.Mode().String(), d.backings())
		d.apart.pool = &pool
	}
	return d.dev.StartApart(d.apart)
}

// backings returns the files and disks of the device.
func (d *Device) backings() []*backing.Backing {
	if d.stack != nil {
		return d.stack.Backings
	}
	return []*backing.Backing{d.b}
}

// prepare writes the state and parameters of an added device. The state is written before
// the start, so that every device says what it is for. Until the device is open, another
// process, such as del, can remove it and so free its id. The lock excludes that.
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
	params, err := d.storage.Params(d.dev.Mode(), info.MaxIOBytes)
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

// now returns the driver's info about the device. It returns an error that wraps ENODEV
// if the device was removed, even if another device has its id.
func (d *Device) now() (ublk.Info, error) {
	info, err := d.dev.Now()
	if err == nil && d.isOther(&info) {
		err = fmt.Errorf("%s is another device now: %w", d.Path(), unix.ENODEV)
	}
	return info, err
}

// writeState writes the state. The caller holds the lock of the state.
func (d *Device) writeState(cfg *Config) error {
	start, err := ownStartTime()
	if err != nil {
		return err
	}
	s := state{StartTime: start, ManyDevices: d.many, Config: *cfg, Status: &d.status}
	if d.stack != nil {
		s.Files, s.KeyCheck = stackFiles(d.stack), d.stack.KeyCheck(checkSector)
	} else {
		s.FileBirth, s.FileDisk = d.b.Identity.Birth, d.b.Identity.Disk
	}
	if d.transfer != nil {
		s.KeyCheck = keyCheck(&cfg.Transfer, d.transfer, d.b.TransferSize)
	}
	return s.write()
}

// startTime is the start time of this process, once it is known.
var startTime atomic.Uint64

// ownStartTime returns the start time of this process. To find it the kernel looks at all threads.
func ownStartTime() (uint64, error) {
	if start := startTime.Load(); start != 0 {
		return start, nil
	}
	start, err := process.StartTime(os.Getpid())
	startTime.Store(start)
	return start, err
}

// ID returns the device's number.
func (d *Device) ID() uint32 { return d.dev.Info().ID }

// Path returns the block device's path.
func (d *Device) Path() string { return d.dev.BlockPath() }

// Status returns the device's status at its start, as list shows it, with the current
// size. The size comes from the driver, because another process may have changed it
// (Resize).
func (d *Device) Status() Status {
	size := d.startStatus().Size
	if params, err := d.dev.Params(); err == nil {
		size = params.Size
	}
	return d.statusOfSize(size)
}

// statusOfSize is Status without a question to the driver.
func (d *Device) statusOfSize(size uint64) Status {
	s := d.startStatus()
	if size != s.Size {
		s.Size = size
		s.Table = sizedTable(s.Table, s.Size)
	}
	if d.stack != nil && d.stack.Corruptions() > 0 {
		s.Verity = VerityCorrupt
	}
	s.State = ublk.StateLive.String()
	s.MajMin, s.DiskSequence = blockOf(s.ID)
	return s
}

// Done returns a channel that is closed when the device is no longer served.
func (d *Device) Done() <-chan struct{} { return d.dev.Done() }

func (d *Device) isDone() bool {
	select {
	case <-d.Done():
		return true
	default:
		return false
	}
}

// Err returns why the device ended, or nil for an orderly end. It is valid when Done is
// closed.
func (d *Device) Err() error { return d.dev.Err() }
