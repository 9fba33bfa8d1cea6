package loop

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/internal/identity"
	"github.com/ublk-loop/ublk-loop/internal/process"
	"github.com/ublk-loop/ublk-loop/loop/internal/backing"
	"github.com/ublk-loop/ublk-loop/loop/internal/filelock"
	"github.com/ublk-loop/ublk-loop/loop/internal/statefile"
	"github.com/ublk-loop/ublk-loop/transfer"
	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/uapi"
)

// These bound the waits of a recovery for states that cause no event.
const (
	// endingTimeout bounds the wait for a server that is about to end.
	endingTimeout = 500 * time.Millisecond
	// backingTimeout bounds the wait for a killed server's running operations on the
	// file.
	backingTimeout = 20 * time.Second
)

// RecoverOptions are the options of Recover.
type RecoverOptions struct {
	// Key is the key of the device's transfer, nil if there is none. Recover closes it,
	// even if it fails.
	Key *transfer.Secret
	// Passed has the open files of the program that this one has replaced, or is nil.
	// With Passed, the file is not opened again. It has one element, and more only for a
	// device of tables. The device owns the files, unless Recover returns an error.
	Passed []Passed
	// DiskSequence and Tag are as in DetachOptions.
	DiskSequence *uint64
	Tag          uint64
	// Apart is the process that serves the requests, as in [AttachApart]; nil for this
	// process.
	Apart Apart
}

// passed returns the open files of Passed.
func (o *RecoverOptions) passed() (files []*os.File) {
	for i := range o.Passed {
		files = append(files, o.Passed[i].File)
	}
	return files
}

// Recover makes this process the server of a device of ublk-loop whose server has ended
// without removing the device. file, from OpenPath, must be the device's file. When
// Recover returns nil, the device's I/O continues. After an error, the device is
// unchanged. The caller keeps file and may close it.
//
// Recover waits for at most 20 seconds until all operations of the last server on the
// file have ended, because none of its writes may come after those of this server. The
// end of the lock of the server's rings shows that.
//
// Recover returns an error that wraps ErrServed while the device has a server,
// ublk.ErrNotRecoverable for a device without OnCrash, ESTALE if file is not the device's
// file, EINVAL if the file has become too small, EBUSY if another process uses the file,
// ErrForeign for another program's device, transfer.ErrNoKey if a key is missing, and
// EKEYREJECTED if the key is not the device's.
func Recover(ctl *ublk.Control, id uint32, file *os.File, opts RecoverOptions) (*Device, error) {
	return recoverOn(ctl, id, file, opts, nil)
}

func recoverOn(ctl *ublk.Control, id uint32, file *os.File, opts RecoverOptions, shared *threads) (*Device, error) {
	return recoverLocked(id, opts, func() (*Device, error) { return recoverDevice(ctl, id, file, opts, shared) })
}

func recoverDevice(ctl *ublk.Control, id uint32, file *os.File, opts RecoverOptions, shared *threads) (*Device, error) {
	saved, params, err := recoverableOf(ctl, id, file, opts)
	if err != nil {
		return nil, err
	}
	cfg := saved.configFor(&params)
	cfg.Key = opts.Key
	b, giveBack, err := openFreed(file, &cfg, saved.lockRange(params.Size), opts.Passed)
	if err != nil {
		return nil, err
	}
	if err := saved.replaceBy(b); err != nil {
		return nil, errors.Join(err, giveBack())
	}
	d := deviceOfFile(b, &cfg, shared, opts.Apart)
	defer d.apart.forgetKey()
	d.inherit(saved, &params)
	if b.IsDisk {
		d.status.File, d.status.FileDevice = b.Path, b.Identity.Device // the disk may have a new path and number
	}
	return d.recoverBy(giveBack, func() error {
		if err := d.makeTransfer(&cfg); err != nil {
			return err
		}
		if err := saved.checkKey(d); err != nil {
			return err
		}
		return d.takeOver(ctl, saved, shared)
	})
}

// inherit sets the status that this process continues.
func (d *Device) inherit(saved *state, params *ublk.Params) {
	d.status = *saved.Status
	d.status.PID, d.status.Size, d.status.Limits = os.Getpid(), params.Size, limitsOf(params)
}

// recoverBy makes this process the server of a device with a function. After an error it gives the
// files back, unless the queues still run.
func (d *Device) recoverBy(giveBack, takeOver func() error) (*Device, error) {
	err := takeOver()
	if errors.Is(err, ublk.ErrServed) {
		// The queues hold tags, even without requests. The driver does not return the
		// tags before this process ends.
		return nil, hint.Add(err, "it can be recovered when this server has ended")
	}
	if err != nil {
		return nil, errors.Join(err, d.closeTransfer(), giveBack())
	}
	d.watch()
	return d, nil
}

// replaceBy returns an error if the opened backing is not the device's. It removes the lock
// of the last server.
func (s *state) replaceBy(b *backing.Backing) error {
	// The descriptor that was checked names a disk by its number, and another disk may
	// have got the number. The opened disk cannot change any more.
	if err := checkIdentity(b.Identity, s.file(), b.Path); err != nil {
		return err
	}
	// A volume that was activated again is the same disk with another lock.
	_, err := filelock.Forget(statefile.LockDir, s.file())
	return err
}

// recoverableOf returns the state and the parameters of a device that another server can
// take over with file.
func recoverableOf(ctl *ublk.Control, id uint32, file *os.File, opts RecoverOptions) (*state, ublk.Params, error) {
	saved, err := recoverable(ctl, id, &opts)
	if err != nil {
		return nil, ublk.Params{}, err
	}
	params, err := ctl.Params(id)
	if err == nil {
		err = saved.checkBacking(file, params.Size)
	}
	return saved, params, err
}

// recoverable returns the state of the device of opts, which another server can take over.
func recoverable(ctl *ublk.Control, id uint32, opts *RecoverOptions) (*state, error) {
	info, saved, err := readOurs(ctl, id, opts.Tag, opts.DiskSequence)
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

// checkEnded returns an error while a device has a server. If the state names this
// process, the server was a program that this one has replaced.
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

// checkInterrupted refuses a device whose recovery was interrupted, on a kernel that
// would crash (see ublk.Control.Recover). Kernels that forget a server when it ends, not
// when the next one comes, are safe. They also support UBLK_F_QUIESCE, which shows them.
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

// checkBacking returns an error if file is not the device's file, or has become too
// small.
func (s *state) checkBacking(file *os.File, size uint64) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil {
		return fmt.Errorf("stat %s: %w", file.Name(), err)
	}
	found, err := identity.Of(file)
	if err != nil {
		return err
	}
	if err := checkIdentity(found, s.file(), file.Name()); err != nil {
		return err
	}
	total := uint64(st.Size)
	if st.Mode&unix.S_IFMT == unix.S_IFBLK {
		if total, err = diskSize(backing.ProcPath(int(file.Fd())), s.file(), s.Status.File); err != nil {
			return err
		}
	}
	if total < s.Status.Offset || total-s.Status.Offset < size {
		return fmt.Errorf("%s has %d bytes, too few for a device of %d bytes at offset %d: %w",
			file.Name(), total, size, s.Status.Offset, unix.EINVAL)
	}
	return nil
}

// checkIdentity returns an error that wraps ESTALE if the object is not the device's file
// or disk, as the state has it.
func checkIdentity(found, was identity.File, name string) error {
	switch {
	case found.Is(was):
		return nil
	case !found.IsDisk:
		return fmt.Errorf("%s is another file than the device was made of: %w", name, unix.ESTALE)
	}
	err := fmt.Errorf("%s is another disk than the device was made of: %w", name, unix.ESTALE)
	return hint.Add(err, "a name or number does not identify a disk: remove the device with del {force}")
}

// file returns the identity of the device's file or disk.
func (s *state) file() identity.File {
	f := s.Status.file()
	f.Birth, f.Disk = s.FileBirth, s.FileDisk
	return f
}

// takeOver makes this process the server. It writes the state first, so that the state
// always names the server. If the driver has changed nothing, takeOver restores the old
// state. It waits for the driver before all that: if this process is killed during the
// wait, the recovery has not begun.
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
	opts := ublk.RecoverOptions{NoPartScan: !s.Config.PartScan, Threads: shared.of(saved.Status.BufferMode, d.backings()...)}
	if d.stack != nil {
		opts.Files, opts.ExtraParts = d.stack.Files(), d.stack.ExtraParts(saved.Status.Depth)
	}
	d.dev, err = ctl.Recover(d.status.ID, opts)
	if err != nil {
		return errors.Join(err, saved.write())
	}
	if err := d.serve(d.target(saved.Status.Depth)); err != nil {
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
