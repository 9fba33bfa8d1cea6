package stack

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/loop/internal/backing"
	"github.com/ublk-loop/ublk-loop/loop/internal/basemark"
	"github.com/ublk-loop/ublk-loop/loop/internal/cow"
	"github.com/ublk-loop/ublk-loop/transfer/snapshot"
	"github.com/ublk-loop/ublk-loop/transfer/table"
)

// runBytes is the maximum number of bytes that are copied while writes to them wait. It is a number of chunks of each
// size.
const runBytes = 4 << 20

// lastBytes is the number of bytes that can be copied while the device keeps all requests, so that
// no new exceptions come. Tests change it.
var lastBytes uint64 = 8 << 20

// reserveBytes is the size of the changes that writes can make while chunks are copied.
const reserveBytes = 64 << 20

// A Merge moves the changes of the uppermost store into its base while the device is used. In
// the end the store is empty, and the device goes on with it.
type Merge struct {
	// Chunks is the number of chunks that were copied.
	Chunks uint64

	store  *cow.Store
	base   *backing.Backing
	file   *os.File // base, open for writing
	run    []snapshot.Record
	buffer []byte

	reserve         uint64 // chunks of the store that are free while the device does not keep its requests
	isLockedByOther bool   // the process that controls the device holds the lock of the base

	wasHeld bool
	left    uint64 // exceptions after chunks were copied while the device kept its requests
}

// NewMerge prepares a merge. The base must be a file or disk that no other device has and no
// other store needs. The caller closes the merge.
func (s *Stack) NewMerge() (*Merge, error) {
	m, err := s.findMerge()
	if err != nil {
		return nil, err
	}
	if err = m.open(); err == nil && !s.described {
		err = m.makeMemory()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("base %s: %w", m.base.Path, err), m.Close())
	}
	return m, nil
}

// findMerge returns a merge with its store and its base.
func (s *Stack) findMerge() (*Merge, error) {
	t := &s.tables.Tables[len(s.tables.Tables)-1]
	line, ok := t.Lines[0].Target.(*table.Snapshot)
	if !ok || len(t.Lines) != 1 {
		return nil, hint.Add(fmt.Errorf("the device is no snapshot: %w", unix.EINVAL), "only a device with a store has changes: ublk-loop add --cow")
	}
	m := &Merge{}
	for i, device := range s.tables.Devices() {
		switch b := s.backingOf[i]; device {
		case line.Store:
			m.store = s.storeOf[b]
		case line.Origin:
			m.base = s.Backings[b]
		}
	}
	switch {
	case m.store == nil:
		return nil, fmt.Errorf("the device is read-only: %w", unix.EROFS)
	case m.store.IsTransient():
		return nil, fmt.Errorf("merge of a transient store: %w", errors.ErrUnsupported)
	case s.isVerity(line.Origin), m.store.Label() != nil && m.store.Label().Verity:
		return nil, hint.Add(snapshot.ErrVerity, forceHint)
	case m.base == nil:
		return nil, s.refuseTable(line.Origin)
	}
	return m, nil
}

// open gets the base for this device alone, and opens it for writing.
func (m *Merge) open() error {
	isStore, err := snapshot.IsStore(m.base.File)
	switch {
	case err != nil:
		return err
	case isStore:
		return fmt.Errorf("merge into a store: %w", errors.ErrUnsupported)
	}
	if err := m.base.LockForWriting(); err != nil {
		return err
	}
	var only *basemark.UUID
	if label := m.store.Label(); label != nil {
		id := basemark.UUID(label.UUID)
		only = &id
	}
	if err := m.base.CheckStores(only); err != nil {
		return hintNeeded(err)
	}
	if m.file, err = m.base.ReopenForWriting(); err != nil {
		return err
	}
	return refuseTree(m.file, m.base.Size)
}

// makeMemory makes the buffers.
func (m *Merge) makeMemory() error {
	var err error
	m.run = make([]snapshot.Record, runBytes/m.store.Layout.ChunkSize())
	m.reserve = m.store.ReserveFor(reserveBytes)
	m.buffer, err = unix.Mmap(-1, 0, snapshot.MaxChunkSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	return err
}

// forceHint says how to merge into an image that has a hash tree.
const forceHint = "detach the device, and use ublk-loop cow merge --force; the image is useless with its root hash then"

// isVerity reports whether a device is a table with the target verity.
func (s *Stack) isVerity(device string) bool {
	i, ok := s.tables.Table(device)
	if ok {
		_, ok = s.tables.Tables[i].Lines[0].Target.(*table.Verity)
	}
	return ok
}

// Base returns the base, which the merge has locked for itself.
func (m *Merge) Base() *backing.Backing { return m.base }

// Close ends the merge. The base is only read from then on.
func (m *Merge) Close() error {
	var err error
	if m.buffer != nil {
		err = unix.Munmap(m.buffer)
	}
	if m.file != nil {
		err = errors.Join(err, m.file.Close())
	}
	m.buffer, m.file = nil, nil
	if m.isLockedByOther {
		return err
	}
	return errors.Join(err, m.base.LockForReading())
}

// Do merges everything. hold makes the device keep its requests until resume is called. Do ends
// early, between two runs, if the context does.
//
// Writes make new exceptions meanwhile. When few are left, the device keeps its requests until none
// is left. When as many chunks were copied as would have been enough twice, writes make exceptions
// too fast. From then on, the device keeps its requests while chunks are copied: few at a time, or
// twice as many as were added since the last time, so that fewer are left each time.
//
// A store that is nearly full could become full by these writes. Therefore the device also keeps its
// requests while chunks are copied until enough chunks of the store are free.
func (m *Merge) Do(ctx context.Context, hold func() (resume func(), err error)) error {
	most := 2*m.store.Left() + uint64(len(m.run))
	for ended := false; !ended; {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		resume, err := hold()
		if err != nil {
			return err
		}
		m.store.Recycle()
		if few := m.few(); m.store.Left() <= few || m.Chunks > most || m.isNarrow() {
			ended, err = m.held(few)
			resume()
		} else {
			err = m.unheld(resume)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// isNarrow reports whether writes could fill the store while a run is copied.
func (m *Merge) isNarrow() bool { return m.store.Free() < m.reserve }

// few returns how many chunks can be copied while the device keeps its requests.
func (m *Merge) few() uint64 {
	few := max(1, lastBytes>>m.store.Layout.Shift())
	if left := m.store.Left(); m.wasHeld && left > m.left {
		return max(few, 2*(left-m.left))
	}
	return few
}

// held merges at most some chunks while the device keeps its requests. It reports whether no
// exception is left.
func (m *Merge) held(most uint64) (ended bool, err error) {
	if err := m.store.Save(); err != nil {
		return false, err
	}
	for end := m.Chunks + most; m.Chunks < end || m.store.Left() == 0; {
		run, err := m.store.BeginRun(m.run[:min(uint64(len(m.run)), max(1, end-m.Chunks))])
		switch {
		case err != nil:
			return false, err
		case len(run) == 0:
			return true, m.store.Empty()
		}
		if err := m.one(run); err != nil {
			return false, err
		}
		m.store.Recycle()
	}
	m.wasHeld, m.left = true, m.store.Left()
	return false, nil
}

// unheld merges a run, and lets the device go on when the run has begun.
func (m *Merge) unheld(resume func()) error {
	run, err := m.store.BeginRun(m.run)
	resume()
	switch {
	case err != nil:
		return err
	case len(run) == 0:
		return m.store.Save() // all exceptions are new
	}
	return m.one(run)
}

// one copies the chunks of a run and removes their records.
func (m *Merge) one(run []snapshot.Record) error {
	err := m.copyAll(run)
	if err == nil {
		err = m.file.Sync()
	}
	if err := m.store.EndRun(run, err); err != nil {
		return err
	}
	m.Chunks += uint64(len(run))
	return nil
}

func (m *Merge) copyAll(run []snapshot.Record) error {
	for len(run) > 0 {
		n := snapshot.Adjacent(run, len(m.buffer)>>m.store.Layout.Shift())
		if err := m.copy(run[0], n); err != nil {
			return err
		}
		run = run[n:]
	}
	return nil
}

// copy copies n contiguous chunks. The base can end within the last one. It can be longer than the device,
// and the store then has chunks behind the end of the device.
func (m *Merge) copy(first snapshot.Record, n int) error {
	b := m.buffer[:n<<m.store.Layout.Shift()]
	if err := m.store.Read(b, first.New); err != nil {
		return err
	}
	at := m.store.Layout.Offset(first.Old)
	if _, err := m.file.WriteAt(b[:min(uint64(len(b)), m.store.Origin-uint64(at))], at); err != nil {
		return fmt.Errorf("write the base: %w", err)
	}
	return nil
}
