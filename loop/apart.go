package loop

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/loop/internal/backing"
	"github.com/ublk-loop/ublk-loop/loop/internal/stack"
	"github.com/ublk-loop/ublk-loop/loop/serving"
	"github.com/ublk-loop/ublk-loop/transfer"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// Apart is another process that serves the requests of a device. It has only what the work says.
// This process keeps the control of the device. Several devices of a Server can have the same process.
type Apart interface {
	// Serve passes the work to the process. It returns as [ublk.Apart].Serve does, or serving.ErrSilent after a
	// time without an answer. The descriptors and the key stay the caller's.
	Serve(w *serving.Work) (ended <-chan error, err error)
	// Ask passes a request to the process that serves, and waits for its answer. The descriptors
	// stay the caller's. The end of the context ends a merge, and Ask then returns its result. It ends
	// the wait for the answer to any other request. So does the end of the device, after serving.AnswerPatience.
	Ask(ctx context.Context, r *serving.Request) (serving.Answer, error)
	// Kill ends the process at once.
	Kill()
	// Unused says that this process serves the requests, and is about to start that.
	Unused()
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

// apartTarget describes the work of a device to the other process, and asks it for changes.
type apartTarget struct {
	process  Apart
	describe func(w *serving.Work) error
	pool     *serving.Pool // nil for threads of the device's own
	key      *transfer.Secret
	holds    atomic.Uint64                  // number of holds
	counted  atomic.Pointer[serving.Answer] // the last answer to Stats
	// merges is the context of all merges. endMerges ends it.
	merges    context.Context
	endMerges func()
}

var _ ublk.Apart = (*apartTarget)(nil)

// newApartTarget returns nil if this process has to serve the requests. It copies the key, because
// the transfer of this process takes the configuration's.
func newApartTarget(process Apart, cfg *Config) *apartTarget {
	if process == nil {
		return nil
	}
	a := &apartTarget{process: process}
	a.merges, a.endMerges = context.WithCancel(context.Background())
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
	w := &serving.Work{Queues: queues, Pool: a.pool, FDs: []int{charFD}, Key: a.key}
	if err := a.describe(w); err != nil {
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
	a.describe = func(w *serving.Work) error {
		w.File = &serving.File{Offset: b.Offset, Sector: b.SectorSize, IsDisk: b.IsDisk, ReadOnly: b.ReadOnly, Direct: b.Direct}
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

// maxFailures bounds the failures of stores that are logged, whatever the other process reports. A store
// fails at most twice.
const maxFailures = 100

// ofTables makes the work that of a device of tables.
func (a *apartTarget) ofTables(s *stack.Stack) {
	if a == nil {
		return
	}
	a.describe = func(w *serving.Work) error {
		var fds []int
		var err error
		failures := 0
		w.Tables, fds, err = s.Work()
		w.FDs = append(w.FDs, fds...)
		w.Found = func(f serving.Finding) {
			if f.Corruption != nil {
				s.ReportCorruption(*f.Corruption)
			}
			if f.Failure != nil && failures < maxFailures {
				failures++
				s.ReportFailure(*f.Failure)
			}
		}
		return err
	}
}

// savePatience bounds the wait for the answer to a hold, beyond the patience of that: the stores are saved then.
const savePatience = 10 * time.Second

func (a *apartTarget) ask(op serving.Op) error {
	return a.askFor(&serving.Request{Op: op}, serving.AnswerPatience)
}

// askFor returns an error that wraps ETIMEDOUT if there is no answer within patience.
func (a *apartTarget) askFor(r *serving.Request, patience time.Duration) error {
	ctx, end := context.WithTimeoutCause(context.Background(), patience, serving.ErrSilent)
	defer end()
	_, err := a.process.Ask(ctx, r)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return err
}

// hold makes the other process keep new requests and save the stores, see Device.hold.
func (a *apartTarget) hold(dev *ublk.Device, patience time.Duration) (resume func(), err error) {
	inFlight, err := dev.OpenInFlight()
	if err != nil {
		return nil, err
	}
	defer func() { _ = inFlight.Close() }()
	return a.holdWith(inFlight, patience)
}

func (a *apartTarget) holdWith(inFlight *ublk.InFlight, patience time.Duration) (resume func(), err error) {
	number := a.holds.Add(1)
	resume = func() { // fails only if the process is broken
		_ = a.askFor(&serving.Request{Op: serving.Resume, Number: number}, serving.AnswerPatience)
	}
	r := &serving.Request{Op: serving.Hold, Number: number, Patience: patience, FDs: descriptors(inFlight)}
	err = a.askFor(r, patience+savePatience)
	if errors.Is(err, unix.ETIMEDOUT) {
		go resume() // a hold that succeeds later
	}
	if err != nil {
		return nil, err
	}
	return resume, nil
}

// descriptors returns the descriptors of an InFlight.
func descriptors(f *ublk.InFlight) (fds []int) {
	for _, file := range f.Files() {
		fds = append(fds, int(file.Fd()))
	}
	return fds
}

// grow makes the other process open the new store.
func (a *apartTarget) grow(g *stack.Growth) error {
	work, fds, err := g.Work()
	if err == nil {
		err = a.askFor(&serving.Request{Op: serving.Grow, Growth: work, FDs: fds}, serving.AnswerPatience)
	}
	return err
}

// reload makes the other process open the new files.
func (a *apartTarget) reload(r *stack.Reload) error {
	work, fds, err := r.Work()
	if err == nil {
		err = a.askFor(&serving.Request{Op: serving.Reload, Tables: work, FDs: fds}, serving.AnswerPatience)
	}
	return err
}

// apply makes the other process serve the new tables. The state has it already, so that a process that
// does not change over must not go on, with all of its devices. A device that has ended is not served.
func (a *apartTarget) apply() {
	if err := a.ask(serving.Apply); err != nil && !errors.Is(err, unix.ENODEV) {
		a.Kill()
	}
}

// merge makes the other process merge the store into the base.
func (a *apartTarget) merge(ctx context.Context, dev *ublk.Device, m *stack.Merge) (chunks uint64, err error) {
	inFlight, err := dev.OpenInFlight()
	if err != nil {
		return 0, err
	}
	defer func() { _ = inFlight.Close() }()
	ctx, end := context.WithCancel(ctx)
	defer end()
	defer context.AfterFunc(a.merges, end)()
	answer, err := a.process.Ask(ctx, &serving.Request{
		Op: serving.Merge, Patience: mergePatience, FDs: append([]int{int(m.File().Fd())}, descriptors(inFlight)...),
	})
	switch {
	case a.merges.Err() != nil && err != nil:
		err = unix.ENODEV
	case ctx.Err() != nil && err != nil:
		err = context.Cause(ctx)
	}
	return answer.Chunks, err
}

// statsPatience is how long metrics wait for the other process.
const statsPatience = time.Second

// stats returns what the other process has counted. If it does not answer, its last answer counts: with
// zeros in between, a counter would seem to begin anew.
func (a *apartTarget) stats() *serving.Answer {
	ctx, end := context.WithTimeout(context.Background(), statsPatience)
	defer end()
	answer, err := a.process.Ask(ctx, &serving.Request{Op: serving.Stats})
	if err == nil && answer.Stats != nil {
		a.counted.Store(&answer)
		return &answer
	}
	if last := a.counted.Load(); last != nil {
		return last
	}
	return &serving.Answer{Stats: &ublk.Stats{}}
}
