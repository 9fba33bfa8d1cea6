package loop

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/identity"
	"github.com/ublk-loop/ublk-loop/loop/internal/backing"
	"github.com/ublk-loop/ublk-loop/loop/internal/filelock"
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
	// IsUnaligned reports whether the device's sectors do not begin at multiples of their
	// size in the file.
	IsUnaligned() bool
	DropCache(stop func() bool) (drop func())
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

// ParseKeylessTable is ParseTable for a text that must not contain keys. It returns an error
// that wraps table.ErrKeyInText if the text does.
func ParseKeylessTable(text []byte) (*table.Stack, error) { return stack.Parse(text, false) }

// MaxTableKeyBytes is the maximum length of the keys of a device of tables together. It is the
// size of a pipe.
const MaxTableKeyBytes = 64 << 10

// TableWrites returns which of table.Stack.Devices a device of a stack writes to. It only reads the origins
// of snapshots, and what is below read-only tables.
func TableWrites(tables *table.Stack, readOnly bool) []bool { return stack.Written(tables, readOnly) }

// OpenTableDevice is OpenPath for a device of a table: a path, or MAJOR:MINOR.
func OpenTableDevice(device string) (*os.File, error) { return stack.OpenDevice(OpenPath, device) }

// OpenTableDeviceIn is OpenPathIn for a device of a table. It returns an error that wraps
// EINVAL for a path that is not absolute.
func OpenTableDeviceIn(root *os.File, device string) (*os.File, error) {
	return stack.OpenDevice(func(path string) (*os.File, error) {
		if !filepath.IsAbs(path) {
			return nil, fmt.Errorf("not an absolute path: %w", unix.EINVAL)
		}
		return OpenPathIn(root, path)
	}, device)
}

// AttachTable is Attach for the tables of cfg.Table. files are from OpenTableDevice, in the
// order of table.Stack.Devices. cfg.Key has the keys of all lines with the target crypt, one
// after another. AttachTable closes it in any case. AttachTable returns an error that wraps
// errors.ErrUnsupported for a configuration that is only for a device of one file.
func AttachTable(ctl *ublk.Control, files []*os.File, cfg Config) (*Device, error) {
	return attachTableOn(ctl, files, cfg, nil, nil)
}

// attachTableOn is attachOn for a device of tables.
func attachTableOn(ctl *ublk.Control, files []*os.File, cfg Config, shared *threads, apart Apart) (*Device, error) {
	if cfg.Key != nil {
		defer cfg.Key.Close()
	}
	if err := cfg.checkTable(); err != nil {
		return nil, err
	}
	target := newApartTarget(apart, &cfg)
	defer target.forgetKey()
	s, err := openNewStack(ctl, files, &cfg, shared, target != nil)
	if err != nil {
		return nil, err
	}
	d := deviceOfStack(ctl, s, shared, target)
	if err := d.keepKey(cfg.Key); err != nil {
		return nil, errors.Join(err, d.closeTransfer(), s.Close())
	}
	cfg.Key = nil
	return d.attach(ctl, &cfg, shared)
}

// deviceOfStack is deviceOfFile for a stack, which was opened with its keys.
func deviceOfStack(ctl *ublk.Control, s *stack.Stack, shared *threads, target *apartTarget) *Device {
	target.ofTables(s)
	return &Device{stack: s, storage: s, ctl: ctl, many: shared != nil, apart: target}
}

// keepApart makes the block layer send each bio as a request of its own. The driver takes one
// result for a request, so otherwise the neighbours of a wrong block of verity would fail with
// it: reads of other programs, which the kernel's verity serves. The kernel keeps the attribute
// as long as the disk (Documentation/ABI/stable/sysfs-block, queue/nomerges).
func (d *Device) keepApart() error {
	path := filepath.Join("/sys/block", filepath.Base(d.Path()), "queue/nomerges")
	if err := os.WriteFile(path, []byte("2"), 0); err != nil {
		return fmt.Errorf("keep reads of different programs apart: %w", err)
	}
	return nil
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

// openNewStack opens the files and disks of a new device. described is stack.Options.Described.
func openNewStack(ctl *ublk.Control, files []*os.File, cfg *Config, shared *threads, described bool) (*stack.Stack, error) {
	s, err := openStack(files, cfg, &stack.Options{Described: described}, 0)
	if err != nil {
		return nil, err
	}
	if err := checkWaiting(ctl, shared.serves(), lockedPlaces(filelock.Range{}, s.Backings...)); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// openStack opens the files and disks of cfg.Table, or takes over those that were passed. how has
// the options that do not follow from cfg. The tables get a size in bytes, unless that is 0.
func openStack(files []*os.File, cfg *Config, how *stack.Options, size uint64) (*stack.Stack, error) {
	tables, err := stack.Parse([]byte(cfg.Table), false)
	if err == nil && size != 0 {
		err = setSize(tables, size)
	}
	if err != nil {
		return nil, err
	}
	opts := stackOptions(cfg)
	opts.Passed, opts.Described = how.Passed, how.Described
	return stack.Open(files, tables, opts)
}

func stackOptions(cfg *Config) *stack.Options {
	return &stack.Options{
		LockDir: statefile.LockDir, ReadOnly: cfg.ReadOnly, Shared: cfg.Shared, DirectIO: cfg.DirectIO, MaxIOBytes: cfg.MaxIOBytes, Keys: cfg.Key,
		KeepSpace: cfg.KeepSpace,
		Eager:     cfg.OnCrash != "" && cfg.OnCrash != CrashFail,
	}
}

// setSize gives tables a size in bytes.
func setSize(tables *table.Stack, size uint64) error {
	if sectors := size >> transfer.SectorShift; sectors != tables.Sectors() {
		return tables.Resize(sectors)
	}
	return nil
}

// sizedTable returns the text of tables as it is when the device has a size in bytes. The state
// keeps the text with which the device was made.
func sizedTable(text string, size uint64) string {
	if text == "" {
		return "" // a device of one file
	}
	tables, err := stack.Parse([]byte(text), false)
	if err != nil || size>>transfer.SectorShift == tables.Sectors() || setSize(tables, size) != nil {
		return text
	}
	return tables.Text()
}

// describeStack fills in the fields of a status that depend on the tables.
func (d *Device) describeStack(s *Status, cfg *Config) {
	s.Size, s.ReadOnly, s.DirectIO = d.stack.Size, d.stack.ReadOnly, d.stack.Direct()
	s.Transfer.Name = transfer.None
	if d.stack.Checks() {
		s.Verity = VerityValid
	}
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
