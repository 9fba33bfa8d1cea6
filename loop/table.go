package loop

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/identity"
	"github.com/ublk-loop/ublk-loop/loop/internal/backing"
	"github.com/ublk-loop/ublk-loop/loop/internal/stack"
	"github.com/ublk-loop/ublk-loop/loop/internal/statefile"
	"github.com/ublk-loop/ublk-loop/transfer"
	"github.com/ublk-loop/ublk-loop/transfer/table"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// storage is what a device serves: a file or disk, or the files and disks of a stack of
// tables.
type storage interface {
	MaxIOBytes(mode ublk.BufferMode) uint32
	Params(mode ublk.BufferMode, granted uint32) (ublk.Params, error)
	Checksummer() (string, error)
	// Transforms reports whether the device has other bytes than what it is made of.
	Transforms() bool
	DropCache(stop func() bool)
	Ask() error
	Unlock()
	Close() error
}

var (
	_ storage = (*backing.Backing)(nil)
	_ storage = (*stack.Stack)(nil)
)

// errNoTables is the error of an operation that devices of tables do not have.
func errNoTables(what string) error {
	return fmt.Errorf("%s of a device of tables: %w", what, errors.ErrUnsupported)
}

// ParseTable reads the text of a device-mapper table, or of a stack of tables, and refuses
// what AttachTable does not serve. The text may contain keys, so it must not be from a command
// line. The caller wipes it, closes the stack, and opens the files and disks, in the order of
// Stack.Devices, with OpenTableDevice. The text can be from anyone. Most errors are a
// *table.StackError.
func ParseTable(text []byte) (*table.Stack, error) { return stack.Parse(text, true) }

// OpenTableDevice is OpenPath for a device of a table: a path, or MAJOR:MINOR.
func OpenTableDevice(device string) (*os.File, error) {
	major, minor, ok := table.DeviceNumber(device)
	if !ok {
		return OpenPath(device)
	}
	return openNumber(unix.Mkdev(major, minor))
}

// openNumber opens the node that the kernel has made for a block device.
func openNumber(number uint64) (*os.File, error) {
	name := ""
	uevent, err := os.ReadFile("/sys/dev/block/" + identity.MajMin(number) + "/uevent")
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("no such block device: %w", unix.ENXIO)
	}
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(uevent)) {
		if value, found := strings.CutPrefix(line, "DEVNAME="); found {
			name = strings.TrimSpace(value)
		}
	}
	file, err := OpenPath("/dev/" + name)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err = unix.Fstat(int(file.Fd()), &st); err == nil && (st.Mode&unix.S_IFMT != unix.S_IFBLK || st.Rdev != number) {
		err = fmt.Errorf("/dev/%s is another device: %w", name, unix.ESTALE)
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// AttachTable is Attach for the tables of cfg.Table. files are from OpenTableDevice, in the
// order of table.Stack.Devices. cfg.Key has the keys of all lines with the target crypt, one
// after another. AttachTable closes it in any case. AttachTable returns an error that wraps
// errors.ErrUnsupported for a configuration that is only for a device of one file.
func AttachTable(ctl *ublk.Control, files []*os.File, cfg Config) (*Device, error) {
	if cfg.Key != nil {
		defer cfg.Key.Close()
	}
	if err := cfg.checkTable(); err != nil {
		return nil, err
	}
	s, err := openStack(files, &cfg)
	if err != nil {
		return nil, err
	}
	cfg.Key = nil
	d := &Device{stack: s, storage: s}
	parts := s.Parts(cfg.Depth)
	further := func(ublk.BufferMode) ublk.Options { return ublk.Options{Files: s.Files(), Parts: parts} }
	if d.dev, d.copyReason, err = addDevice(ctl, s, &cfg, further); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	if err := d.start(&cfg, &stack.Target{Stack: s, Parts: parts}); err != nil {
		return nil, errors.Join(err, d.remove())
	}
	d.background.Go(func() { s.DropCache(d.closed.Load) })
	return d, nil
}

// checkTable refuses a configuration that a device of tables does not have.
func (c *Config) checkTable() error {
	for _, o := range []struct {
		what  string
		given bool
	}{
		{"offset", c.Offset != 0},
		{"size limit", c.SizeLimit != 0},
		{"sector size", c.SectorSize != 0},
		{"transfer " + c.Transfer.Name, c.Transfer != TransferConfig{} && c.Transfer != TransferConfig{Name: transfer.None}},
		{"autoclear", c.Autoclear},
	} {
		if o.given {
			return errNoTables(o.what)
		}
	}
	if c.Table == "" {
		return fmt.Errorf("no table: %w", unix.EINVAL)
	}
	return nil
}

func openStack(files []*os.File, cfg *Config) (*stack.Stack, error) {
	tables, err := stack.Parse([]byte(cfg.Table), false)
	if err != nil {
		return nil, err
	}
	return stack.Open(files, tables, &stack.Options{
		LockDir: statefile.LockDir, ReadOnly: cfg.ReadOnly, Shared: cfg.Shared, DirectIO: cfg.DirectIO, MaxIOBytes: cfg.MaxIOBytes, Keys: cfg.Key,
	})
}

// RecoverTable is Recover for a device of tables. files are from OpenPath, in the order of
// Status.Files, and must be the same files and disks. opts.Key has the keys of all lines with
// the target crypt, one after another.
func RecoverTable(ctl *ublk.Control, id uint32, files []*os.File, opts RecoverOptions) (*Device, error) {
	if opts.Key != nil {
		defer opts.Key.Close()
	}
	lock, err := statefile.Acquire(id)
	if err != nil {
		return nil, err
	}
	defer lock.Release()
	d, err := recoverTable(ctl, id, files, opts)
	if err != nil {
		return nil, fmt.Errorf("recover %s: %w", ublk.BlockPath(id), err)
	}
	return d, nil
}

func recoverTable(ctl *ublk.Control, id uint32, files []*os.File, opts RecoverOptions) (*Device, error) {
	saved, err := recoverable(ctl, id)
	if err != nil {
		return nil, err
	}
	params, err := ctl.Params(id)
	if err != nil {
		return nil, err
	}
	cfg := saved.Config
	cfg.Key = opts.Key
	s, err := openFreedStack(files, &cfg)
	if err != nil {
		return nil, err
	}
	d := &Device{stack: s, storage: s, status: *saved.Status}
	d.status.PID, d.status.Limits = os.Getpid(), limitsOf(&params)
	if err = saved.checkStack(s, params.Size); err == nil {
		saved.Files = stackFiles(s) // a disk may have a new path and number
		d.status.Files = statusFiles(saved.Files)
		parts := s.Parts(saved.Status.Depth)
		err = d.takeOver(ctl, saved, ublk.RecoverOptions{Files: s.Files(), Parts: parts}, &stack.Target{Stack: s, Parts: parts})
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	d.background.Go(func() { s.DropCache(d.closed.Load) })
	return d, nil
}

// openFreedStack opens the files and disks when the last server has released them.
func openFreedStack(files []*os.File, cfg *Config) (*stack.Stack, error) {
	deadline := time.Now().Add(backingTimeout)
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		s, err := openStack(files, cfg)
		if !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.EAGAIN) || time.Now().After(deadline) {
			return s, err
		}
		<-time.After(pause)
	}
}

// checkStack returns an error if the files or the keys are not those of the device.
func (s *state) checkStack(opened *stack.Stack, size uint64) error {
	for i, b := range opened.Devices() {
		if i >= len(s.Files) || !b.Identity.Is(s.Files[i].Object) {
			return fmt.Errorf("%s is another file or disk than the device was made of: %w", b.Path, unix.ESTALE)
		}
	}
	switch {
	case opened.Size != size:
		return fmt.Errorf("tables of %d bytes for a device of %d: %w", opened.Size, size, unix.EINVAL)
	case opened.KeyCheck(checkSector) != s.KeyCheck:
		return fmt.Errorf("not the keys that the device was made with: %w", unix.EKEYREJECTED)
	}
	return nil
}

// describeStack fills in the fields of a status that depend on the tables.
func (d *Device) describeStack(s *Status, cfg *Config) {
	s.Size, s.ReadOnly, s.DirectIO = d.stack.Size, d.stack.ReadOnly, d.stack.Direct()
	s.Transfer.Name = transfer.None
	s.Table, s.Files = cfg.Table, statusFiles(stackFiles(d.stack))
}

// stackFiles returns the files and disks of a stack for the state.
func stackFiles(s *stack.Stack) (files []stateFile) {
	for _, b := range s.Devices() {
		files = append(files, stateFile{b.Path, b.Identity})
	}
	return files
}

// files returns the identities of all files and disks of the device, without their birth.
func (s *Status) files() []identity.File {
	if s.Table == "" {
		return []identity.File{s.file()}
	}
	var files []identity.File
	for _, f := range s.Files {
		files = append(files, identity.File{IsDisk: f.IsDisk, Device: f.Device, Inode: f.Inode})
	}
	return files
}

// files returns the identities of all files and disks of the device.
func (s *state) files() []identity.File {
	if s.Config.Table == "" {
		return []identity.File{s.file()}
	}
	var files []identity.File
	for i := range s.Files {
		files = append(files, s.Files[i].Object)
	}
	return files
}
