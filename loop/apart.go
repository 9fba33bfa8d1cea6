package loop

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/loop/internal/backing"
	"github.com/ublk-loop/ublk-loop/loop/internal/filelock"
	"github.com/ublk-loop/ublk-loop/loop/internal/target"
	"github.com/ublk-loop/ublk-loop/transfer"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// Apart is another process that serves the requests of a device of one file or disk. It has
// only what the work says. This process keeps the control of the device.
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
	Queues   ublk.QueueTask
	Offset   uint64 // start of the device in the file, in bytes
	Sector   uint32 // size of the device's sectors, in bytes
	IsDisk   bool
	ReadOnly bool
	Direct   bool   // I/O bypasses the page cache
	Transfer string // a name of package transfer
	Cipher   transfer.Options

	// FDs are the open character device, the open file, and the lock of its rings, if there
	// is one.
	FDs []int `json:"-"`
	// Key is the key of the transfer; nil for none.
	Key *transfer.Secret `json:"-"`
}

// AttachApart is [Attach] with a process that serves the requests. A device with Config.PartScan
// is served by this process, because the kernel looks for partitions only if the server has
// CAP_SYS_ADMIN.
func AttachApart(ctl *ublk.Control, file *os.File, cfg Config, apart Apart) (*Device, error) {
	return attachOn(ctl, file, cfg, nil, apart)
}

// apartTarget describes the work of a device to the other process.
type apartTarget struct {
	process Apart
	b       *backing.Backing
	cfg     TransferConfig
	key     *transfer.Secret
}

var _ ublk.Apart = (*apartTarget)(nil)

// newApartTarget returns nil if this process has to serve the requests. It copies the key, because
// the transfer of this process takes the configuration's.
func newApartTarget(process Apart, b *backing.Backing, cfg *Config) *apartTarget {
	if process == nil {
		return nil
	}
	a := &apartTarget{process: process, b: b, cfg: cfg.Transfer}
	usable := !cfg.PartScan
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
	w := &Work{
		Queues: queues, Offset: a.b.Offset, Sector: a.b.SectorSize, IsDisk: a.b.IsDisk, ReadOnly: a.b.ReadOnly, Direct: a.b.Direct,
		FDs: []int{charFD, a.b.FD}, Key: a.key,
	}
	if !a.cfg.isNone() {
		w.Transfer = a.cfg.Name
		w.Cipher = transfer.Options{SectorSize: a.b.TransferSize, IVOffset: a.cfg.IVOffset, IVLargeSectors: a.cfg.IVLargeSectors}
	}
	if a.b.Lock != nil {
		w.FDs = append(w.FDs, a.b.Lock.RingFD())
	}
	return a.process.Serve(w)
}

// Kill implements ublk.Apart.
func (a *apartTarget) Kill() { a.process.Kill() }

// Serve serves the work in this process, which is the other process. It takes over the
// descriptors and the key.
func (w *Work) Serve() (*ublk.ServedQueues, error) {
	if len(w.FDs) < 2 {
		return nil, fmt.Errorf("%d descriptors, want 2 or 3: %w", len(w.FDs), unix.EINVAL)
	}
	t := &target.Target{Backing: &backing.Backing{
		FD: w.FDs[1], Offset: w.Offset, SectorSize: w.Sector, IsDisk: w.IsDisk, ReadOnly: w.ReadOnly, Direct: w.Direct,
	}}
	if len(w.FDs) > 2 {
		t.Backing.Lock = filelock.OfRings(os.NewFile(uintptr(w.FDs[2]), "lock"))
	}
	if w.Transfer != "" {
		var err error
		if t.Transfer, err = transfer.New(w.Transfer, w.Key, w.Cipher); err != nil {
			return nil, err
		}
	}
	return ublk.ServeQueues(w.FDs[0], w.Queues, t)
}
