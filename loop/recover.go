package loop

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/internal/identity"
	"github.com/ublk-loop/ublk-loop/loop/internal/backing"
	"github.com/ublk-loop/ublk-loop/loop/internal/process"
	"github.com/ublk-loop/ublk-loop/loop/internal/statefile"
	"github.com/ublk-loop/ublk-loop/transfer"
	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/uapi"
)

// What a recovery waits for, where no event tells of it.
const (
	// endingTimeout bounds the wait for a server that is on its way out.
	endingTimeout = 500 * time.Millisecond
	// backingTimeout bounds the wait for what a server that was killed has
	// under way on the file.
	backingTimeout = 20 * time.Second
)

// RecoverOptions say how a device is taken over.
type RecoverOptions struct {
	// Key is that of the device's transfer, nil for none. Recover closes it,
	// whatever comes of it.
	Key *transfer.Secret
}

// Recover takes over one of our devices, whose server has ended without
// removing it, in this process: file, from OpenPath, is what it was made of.
// When it returns nil the device's I/O goes on; after an error the device is
// as it was. The caller keeps file and may close it.
//
// It waits until all that the last server had under way on the file has ended,
// for 20 seconds at most: none of its writes may come after ours. The end of
// its lock, which belongs to its ring as well, tells of that.
//
// It returns an error that wraps ErrServed while the device has a server,
// ublk.ErrNotRecoverable for a device without OnCrash, ESTALE for another file
// than the device's, EINVAL for one that has become too small, EBUSY for one
// that another uses, ErrForeign for another program's device, transfer.ErrNoKey
// where a key is needed, EKEYREJECTED for another than the device was made with.
func Recover(ctl *ublk.Control, id uint32, file *os.File, opts RecoverOptions) (*Device, error) {
	return recoverOn(ctl, id, file, opts, nil)
}

func recoverOn(ctl *ublk.Control, id uint32, file *os.File, opts RecoverOptions, shared *threads) (*Device, error) {
	if opts.Key != nil {
		defer opts.Key.Close()
	}
	lock, err := statefile.Acquire(id)
	if err != nil {
		return nil, err
	}
	defer lock.Release()
	d, err := recoverDevice(ctl, id, file, opts, shared)
	if err != nil {
		return nil, fmt.Errorf("recover %s: %w", ublk.BlockPath(id), err)
	}
	return d, nil
}

func recoverDevice(ctl *ublk.Control, id uint32, file *os.File, opts RecoverOptions, shared *threads) (*Device, error) {
	saved, err := recoverable(ctl, id)
	if err != nil {
		return nil, err
	}
	params, err := ctl.Params(id)
	if err != nil {
		return nil, err
	}
	if err := saved.checkBacking(file, params.Size); err != nil {
		return nil, err
	}
	cfg := saved.configFor(&params)
	cfg.Key = opts.Key
	b, err := openFreed(file, &cfg)
	if err != nil {
		return nil, err
	}
	// The descriptor that was checked names a disk by its number, which may have come
	// to mean another. Now that it is open, the disk stays.
	if err := saved.checkIdentity(b.Identity, b.Path); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	d := &Device{b: b, many: shared != nil, status: *saved.Status}
	if d.transfer, err = newTransfer(b, &cfg); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	d.status.PID = os.Getpid()
	if b.IsDisk {
		d.status.File, d.status.FileDevice = b.Path, b.Identity.Device // it may have got others
	}
	d.status.Size = b.Size
	d.status.Limits = limitsOf(&params)
	if err = saved.checkKey(d); err == nil {
		err = d.takeOver(ctl, saved, shared)
	}
	if errors.Is(err, ublk.ErrServed) {
		// Its queues have their tags, though no requests: the driver does not
		// give these back before this process ends.
		return nil, hint.Add(err, "it can be recovered when this server has ended")
	}
	if err != nil {
		return nil, errors.Join(err, d.closeTransfer(), b.Close())
	}
	d.background.Go(func() { d.b.DropCache(d.closed.Load) })
	return d, nil
}

// recoverable returns what a device is for, if it is one that another server
// can take over.
func recoverable(ctl *ublk.Control, id uint32) (*state, error) {
	info, err := ctl.Info(id)
	if err != nil {
		return nil, err
	}
	if !isOurs(&info) {
		return nil, ErrForeign
	}
	saved, err := readState(id)
	if err != nil {
		return nil, err
	}
	if err := checkEnded(&info, saved); err != nil {
		return nil, err
	}
	if !info.Features.Recoverable() || info.State == ublk.StateDead {
		return nil, hint.Add(ublk.ErrNotRecoverable, "remove it with del; add {on_crash=reissue} makes one that is recoverable")
	}
	if saved == nil {
		err := fmt.Errorf("its file is unknown: %w", ublk.ErrNotRecoverable)
		return nil, hint.Add(err, "remove it with del")
	}
	return saved, checkInterrupted(ctl, saved)
}

// checkEnded returns an error while a device has a server. One that is said to
// be this process is a program that this one has taken the place of.
func checkEnded(info *ublk.Info, saved *state) error {
	if info.State != ublk.StateLive || saved == nil || saved.Status.PID == os.Getpid() {
		return nil
	}
	server, err := process.Open(saved.Status.PID, saved.StartTime)
	if err != nil || server == nil {
		return err
	}
	defer server.Close()
	ended, err := server.Wait(endingTimeout)
	if err == nil && !ended {
		err = fmt.Errorf("process %d: %w", saved.Status.PID, ErrServed)
	}
	return err
}

// checkInterrupted refuses a device of which a recovery has ended half way, on
// a kernel that crashes over it: ublk.Control.Recover says how. The kernels
// that forget a server when it goes, not when the next comes, can quiesce a
// device, too.
func checkInterrupted(ctl *ublk.Control, saved *state) error {
	if !saved.Recovering {
		return nil
	}
	offered, err := ctl.Features()
	if err != nil && !errors.Is(err, ublk.ErrNotSupported) {
		return err
	}
	if offered.Has(uapi.UBLK_F_QUIESCE) {
		return nil
	}
	err = fmt.Errorf("an earlier recovery has ended half way: %w", ublk.ErrNotRecoverable)
	return hint.Add(err, "remove it with del; before Linux 6.16 another attempt may crash the kernel")
}

// checkBacking returns an error for another object than the device was made
// of, and for one that has become too small for it.
func (s *state) checkBacking(file *os.File, size uint64) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil {
		return fmt.Errorf("stat %s: %w", file.Name(), err)
	}
	found, err := identity.Of(file)
	if err != nil {
		return err
	}
	if err := s.checkIdentity(found, file.Name()); err != nil {
		return err
	}
	total := uint64(st.Size)
	if st.Mode&unix.S_IFMT == unix.S_IFBLK {
		if total, err = s.diskSize(backing.ProcPath(int(file.Fd()))); err != nil {
			return err
		}
	}
	if total < s.Status.Offset || total-s.Status.Offset < size {
		return fmt.Errorf("%s has %d bytes, too few for a device of %d from %d on: %w",
			file.Name(), total, size, s.Status.Offset, unix.EINVAL)
	}
	return nil
}

// checkIdentity returns an error that wraps ESTALE for another object than the device
// was made of.
func (s *state) checkIdentity(found identity.File, name string) error {
	switch {
	case found.Is(s.file()):
		return nil
	case !found.IsDisk:
		return fmt.Errorf("%s is another file than the device was made of: %w", name, unix.ESTALE)
	}
	err := fmt.Errorf("%s is another disk than the device was made of: %w", name, unix.ESTALE)
	return hint.Add(err, "a name or number alone tells no disk: remove it with del {force}")
}

// file returns what the device's file or disk is known by.
func (s *state) file() identity.File {
	f := s.Status.file()
	f.Birth, f.Disk = s.FileBirth, s.FileDisk
	return f
}

// configFor returns the configuration that makes of the file what the last
// server made of it.
func (s *state) configFor(p *ublk.Params) Config {
	cfg := s.Config
	cfg.SectorSize = p.LogicalBlockSize
	if own := cfg.Transfer.SectorSize; own != 0 && own < cfg.SectorSize {
		cfg.SectorSize = 0 // the disk's own, which nobody asked for
	}
	cfg.SizeLimit = p.Size
	cfg.DirectIO = SwitchOff
	if s.Status.DirectIO {
		cfg.DirectIO = SwitchOn
	}
	return cfg
}

// openFreed opens the file or disk once the last server, and the holder of a lease on the
// file, have let go of it.
func openFreed(file *os.File, cfg *Config) (*backing.Backing, error) {
	deadline := time.Now().Add(backingTimeout)
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		b, err := openBacking(file, cfg)
		switch {
		case err == nil && b.Size != cfg.SizeLimit:
			return nil, errors.Join(fmt.Errorf("%s has become smaller: %w", b.Path, unix.EINVAL), b.Close())
		case !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.EAGAIN):
			return b, err
		case time.Now().After(deadline):
			return nil, hint.Add(err, "end what uses it, and recover again")
		}
		<-time.After(pause)
	}
}

// takeOver makes this process the server. The state says so before: a device
// is never there without saying whose it is. What it said comes back where the
// driver has changed nothing. The wait for the driver comes before all of that:
// who is killed in it has not begun.
func (d *Device) takeOver(ctl *ublk.Control, saved *state, shared *threads) error {
	s := *saved
	s.ManyDevices = d.many
	var err error
	if s.StartTime, err = process.StartTime(d.status.PID); err != nil {
		return err
	}
	if err := ctl.AwaitServerEnd(d.status.ID); err != nil {
		return err
	}
	s.Status, s.Recovering = &d.status, true
	if err := s.write(); err != nil {
		return err
	}
	d.dev, err = ctl.Recover(d.status.ID, ublk.RecoverOptions{NoPartScan: !s.Config.PartScan, Threads: shared.of(d.b)})
	if err != nil {
		return errors.Join(err, saved.write())
	}
	if err := d.dev.Start(&target{b: d.b, transfer: d.transfer}); err != nil {
		return errors.Join(err, d.dev.Leave())
	}
	s.Recovering = false
	if err := s.write(); err != nil {
		return errors.Join(err, d.dev.Leave())
	}
	return nil
}

// isRecoverable reports whether the device outlives this process.
func (d *Device) isRecoverable() bool { return d.dev.Info().Features.Recoverable() }
