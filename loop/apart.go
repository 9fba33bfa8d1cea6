package loop

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/loop/internal/backing"
	"github.com/ublk-loop/ublk-loop/loop/internal/filelock"
	"github.com/ublk-loop/ublk-loop/loop/internal/stack"
	"github.com/ublk-loop/ublk-loop/loop/internal/target"
	"github.com/ublk-loop/ublk-loop/transfer"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// Apart is another process that serves the requests of a device. It has only what the work says.
// This process keeps the control of the device.
type Apart interface {
	// Serve passes the work to the process. It returns as [ublk.Apart].Serve does. The
	// descriptors and the key stay the caller's.
	Serve(w *Work) (ended <-chan error, err error)
	// Kill ends the process at once.
	Kill()
	// Unused says that this process serves the requests, and is about to start that.
	Unused()
}

// Work is what the other process gets.
type Work struct {
	Queues ublk.QueueTask
	File   *FileWork   `json:",omitempty"` // a device of one file or disk
	Tables *stack.Work `json:",omitempty"` // a device of tables

	// FDs are the open character device, and the descriptors of File or Tables.
	FDs []int `json:"-"`
	// Key is the key of the transfer, or the keys of the tables; nil for none.
	Key *transfer.Secret `json:"-"`
	// Found is called with what the process has found.
	Found func(Finding) `json:"-"`
}

// FileWork describes a device of one file or disk. Its descriptors are the open file, and the lock of
// its rings, if there is one.
type FileWork struct {
	Offset   uint64 // start of the device in the file, in bytes
	Sector   uint32 // size of the device's sectors, in bytes
	IsDisk   bool
	ReadOnly bool
	Direct   bool   // I/O bypasses the page cache
	Transfer string // a name of package transfer
	Cipher   transfer.Options
}

// MaxWorkFDs is the largest number of Work.FDs.
const MaxWorkFDs = 1 + stack.MaxWorkFDs

// Finding is what the other process tells about the device while it serves the requests.
type Finding struct {
	Corruption *stack.Corruption `json:",omitempty"`
}

// AttachApart is [Attach], or [AttachTable] with the files of cfg.Table, with a process that serves
// the requests. This process serves a device with Config.PartScan, because the kernel looks for
// partitions only if the server has CAP_SYS_ADMIN.
func AttachApart(ctl *ublk.Control, files []*os.File, cfg Config, apart Apart) (*Device, error) {
	if cfg.Table != "" {
		return attachTableOn(ctl, files, cfg, nil, apart)
	}
	if len(files) != 1 {
		return nil, fmt.Errorf("%d files for a device of one: %w", len(files), unix.EINVAL)
	}
	return attachOn(ctl, files[0], cfg, nil, apart)
}

// apartTarget describes the work of a device to the other process.
type apartTarget struct {
	process  Apart
	describe func(w *Work) error
	key      *transfer.Secret
}

var _ ublk.Apart = (*apartTarget)(nil)

// newApartTarget returns nil if this process has to serve the requests. It copies the key, because
// the transfer of this process takes the configuration's.
func newApartTarget(process Apart, cfg *Config) *apartTarget {
	if process == nil {
		return nil
	}
	a := &apartTarget{process: process}
	usable := !cfg.PartScan && !stack.HasStores(cfg.Table)
	if usable && cfg.Key != nil {
		var err error
		a.key, err = cfg.Key.Clone()
		usable = err == nil // if not, this process can still serve
	}
	if !usable {
		process.Unused()
		return nil
	}
	return a
}

// forgetKey wipes the copy of the key. The other process has its own from Serve on.
func (a *apartTarget) forgetKey() {
	if a != nil && a.key != nil {
		a.key.Close()
		a.key = nil
	}
}

// Serve implements ublk.Apart.
func (a *apartTarget) Serve(charFD int, queues ublk.QueueTask) (<-chan error, error) {
	w := &Work{Queues: queues, FDs: []int{charFD}, Key: a.key}
	if err := a.describe(w); err != nil {
		a.Kill()
		return nil, err
	}
	return a.process.Serve(w)
}

// Kill implements ublk.Apart.
func (a *apartTarget) Kill() { a.process.Kill() }

// ofFile makes the work that of a device of one file.
func (a *apartTarget) ofFile(b *backing.Backing, c *TransferConfig) {
	if a == nil {
		return
	}
	a.describe = func(w *Work) error {
		w.File = &FileWork{Offset: b.Offset, Sector: b.SectorSize, IsDisk: b.IsDisk, ReadOnly: b.ReadOnly, Direct: b.Direct}
		if !c.isNone() {
			w.File.Transfer = c.Name
			w.File.Cipher = transfer.Options{SectorSize: b.TransferSize, IVOffset: c.IVOffset, IVLargeSectors: c.IVLargeSectors}
		}
		w.FDs = append(w.FDs, b.FD)
		if b.Lock != nil {
			w.FDs = append(w.FDs, b.Lock.RingFD())
		}
		return nil
	}
}

// ofTables makes the work that of a device of tables.
func (a *apartTarget) ofTables(s *stack.Stack) {
	if a == nil {
		return
	}
	a.describe = func(w *Work) error {
		var fds []int
		var err error
		w.Tables, fds, err = s.Work()
		w.FDs = append(w.FDs, fds...)
		w.Found = func(f Finding) {
			if f.Corruption != nil {
				s.ReportCorruption(*f.Corruption)
			}
		}
		return err
	}
}

// Served is a device that this process serves for another one.
type Served struct {
	*ublk.ServedQueues
	stack *stack.Stack // nil for a device of one file
}

// Serve serves the work in this process, which is the other process. It takes over the
// descriptors and the key.
func (w *Work) Serve() (*Served, error) {
	if len(w.FDs) == 0 || (w.File == nil) == (w.Tables == nil) {
		return nil, fmt.Errorf("a work without descriptors, files or tables: %w", unix.EINVAL)
	}
	served := &Served{}
	var target ublk.Target
	var err error
	if w.File != nil {
		target, err = w.File.target(w.FDs[1:], w.Key)
	} else {
		target, served.stack, err = w.Tables.Target(w.FDs[1:], w.Queues.ExtraParts, w.Key)
	}
	if err == nil {
		served.ServedQueues, err = ublk.ServeQueues(w.FDs[0], w.Queues, target)
	}
	return served, err
}

// target returns the file to serve.
func (w *FileWork) target(fds []int, key *transfer.Secret) (*target.Target, error) {
	if len(fds) < 1 || len(fds) > 2 {
		return nil, fmt.Errorf("%d descriptors, want 1 or 2: %w", len(fds), unix.EINVAL)
	}
	t := &target.Target{Backing: &backing.Backing{
		FD: fds[0], Offset: w.Offset, SectorSize: w.Sector, IsDisk: w.IsDisk, ReadOnly: w.ReadOnly, Direct: w.Direct,
	}}
	if len(fds) > 1 {
		t.Backing.Lock = filelock.OfRings(os.NewFile(uintptr(fds[1]), "lock"))
	}
	var err error
	if w.Transfer != "" {
		t.Transfer, err = transfer.New(w.Transfer, key, w.Cipher)
	}
	return t, err
}

// Report calls a function with all that is found, and does not return.
func (s *Served) Report(found func(Finding)) {
	if s.stack == nil {
		return
	}
	for c := range s.stack.CorruptionReports() {
		found(Finding{Corruption: &c})
	}
}
