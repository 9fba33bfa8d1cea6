package stack

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/identity"
	"github.com/ublk-loop/ublk-loop/loop/internal/backing"
	"github.com/ublk-loop/ublk-loop/loop/internal/basemark"
	"github.com/ublk-loop/ublk-loop/loop/internal/cow"
	"github.com/ublk-loop/ublk-loop/loop/internal/mapping"
	"github.com/ublk-loop/ublk-loop/transfer/snapshot"
	"github.com/ublk-loop/ublk-loop/transfer/table"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// maxForks is the number of stores that a stack can get while it serves a device.
const maxForks = 32

// Growth is a snapshot on top of a stack that serves a device. The order of calls is Grow,
// Register for each handler, Sync and Apply while no request is served, and Freeze; or instead of Apply,
// Unregister for each handler and Close.
type Growth struct {
	stack   *Stack
	tables  *table.Stack
	backing *backing.Backing
	store   *cow.Store
	plan    *mapping.Plan
	origin  uint64 // size of what is below the store
	below   int    // the backing that is only read afterwards: a store, or the file of a plain stack
	lockDir string
}

// Grow opens the store of a snapshot on top of the stack, which has a number of sectors. It returns an
// error that wraps errors.ErrUnsupported unless the last table is a persistent snapshot that is
// written to, or the stack is plain. A last table that encrypts stays above the new snapshot.
func (s *Stack) Grow(file *os.File, sectors uint64, o *Options) (*Growth, error) {
	g, top, err := s.newGrowth()
	if err != nil {
		return nil, err
	}
	g.lockDir = o.LockDir
	if err = g.open(file, o); err == nil {
		err = g.makeTables(sectors)
	}
	if err == nil {
		g.origin, err = g.originSize()
	}
	if err == nil {
		err = g.openStore(top, s.described)
	}
	if err != nil {
		return nil, errors.Join(err, g.Close())
	}
	return g, nil
}

// isPlain reports whether the stack is one file, which can become the origin of a snapshot: written to
// from its start, or encrypted. The device of a disk can lack flushes, which a store needs.
func (s *Stack) isPlain() bool {
	_, whole := s.tables.Whole()
	return whole && !s.ReadOnly && len(s.Backings) == 1 && !s.Backings[0].IsDisk
}

// CanGrow reports whether Grow can give the stack a store, or it has one.
func (s *Stack) CanGrow() bool { return len(s.stores) > 0 || s.isPlain() }

// newGrowth returns a growth without a store, and the uppermost store, which a plain stack does not have.
func (s *Stack) newGrowth() (*Growth, *cow.Store, error) {
	switch {
	case s.hasLayersBelow():
		return nil, nil, fmt.Errorf("a snapshot above the targets crypt and verity: %w", errors.ErrUnsupported)
	case s.ReadOnly || !s.CanGrow():
		return nil, nil, fmt.Errorf("a snapshot above a device without a store for writes: %w", errors.ErrUnsupported)
	}
	if len(s.stores) == 0 {
		return &Growth{stack: s}, nil, nil
	}
	g := &Growth{stack: s, below: -1}
	for i, store := range s.storeOf {
		if store != nil {
			g.below = i
		}
	}
	top := s.stores[len(s.stores)-1]
	if g.below < 0 || s.storeOf[g.below] != top || top.State.Load() != mapping.Usable {
		return nil, nil, fmt.Errorf("its store cannot be written to: %w", unix.EIO)
	}
	return g, top, nil
}

// open opens the file of the store.
func (g *Growth) open(file *os.File, o *Options) error {
	var err error
	if g.backing, err = g.stack.open(file, false, true, o); err != nil {
		return err
	}
	for _, b := range g.stack.Backings {
		if b.Identity.Is(g.backing.Identity) {
			return fmt.Errorf("%s is a part of the device: %w", b.Path, unix.EINVAL)
		}
	}
	return g.stack.checkBlock(g.backing)
}

// makeTables makes the tables with the store. A plain stack may have got another size since it was
// opened.
func (g *Growth) makeTables(sectors uint64) error {
	tables := g.stack.tables
	text, err := "", error(nil)
	if len(g.stack.stores) > 0 {
		text, err = tables.OnTop(g.backing.Path)
	} else {
		var header snapshot.Header
		if header, err = snapshot.ReadHeader(g.backing.File); err != nil {
			return fmt.Errorf("store %s: %w", g.backing.Path, err)
		}
		if tables, err = Parse([]byte(tables.Text()), false); err == nil {
			err = tables.Resize(sectors)
		}
		if err == nil {
			text, err = tables.AsOrigin(g.backing.Path, header.Layout.ChunkSize()>>sectorShift)
		}
	}
	if err == nil {
		g.tables, err = Parse([]byte(text), false)
	}
	return err
}

// Text returns the text of the tables with the store.
func (g *Growth) Text() string { return g.tables.Text() }

// originSize returns the size of what is below the store. The file of a plain stack can be longer than the
// device: whoever opens the store with the file then also sees the rest of the last chunk.
func (g *Growth) originSize() (uint64, error) {
	size := coveredBytes(g.tables)
	if len(g.stack.stores) > 0 {
		return size, nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(g.stack.Backings[0].FD, &st); err != nil {
		return 0, fmt.Errorf("stat %s: %w", g.stack.Backings[0].Path, err)
	}
	return max(size, uint64(st.Size)&^(fileSector-1)), nil
}

// openStore opens the store in the file, and makes the plan. If another process serves the stack, that
// looks at the contents of the store.
func (g *Growth) openStore(top *cow.Store, described bool) error {
	s := g.stack
	o := cow.Options{
		Format: table.Persistent, OriginSize: g.origin, Block: g.backing.SectorSize, Eager: s.eager, Others: s.stores,
		Direct: g.backing.Direct, Described: described, Failed: s.reportFailure(g.backing.Path), Lost: s.reportLost,
	}
	if top != nil {
		o.Format, o.ChunkBytes = top.Format(), top.Layout.ChunkSize()
	}
	var err error
	if g.store, err = cow.Open(g.backing.File, &o); err != nil {
		return fmt.Errorf("store %s: %w", g.backing.Path, err)
	}
	switch {
	case top != nil && g.store.Layout != top.Layout:
		return fmt.Errorf("store %s: chunks of %d bytes, the device has %d: %w", g.backing.Path, g.store.Layout.ChunkSize(), top.Layout.ChunkSize(), unix.EINVAL)
	case !described && !g.store.IsEmpty():
		return fmt.Errorf("store %s: has changes already: %w", g.backing.Path, unix.EINVAL)
	}
	var stores []mapping.Store
	for _, store := range append(s.stores[:len(s.stores):len(s.stores)], g.store) {
		stores = append(stores, store.Store)
	}
	g.plan, err = mapping.New(g.tables, stores)
	return err
}

// Identity returns the identity of the store's file or disk.
func (g *Growth) Identity() identity.File { return g.backing.Identity }

// Register adds the file to a handler of the stack, on its thread.
func (g *Growth) Register(of ublk.Handler) error {
	h, ok := of.(*handler)
	if !ok {
		return fmt.Errorf("a handler of another stack: %w", unix.EINVAL)
	}
	g.store.Reserve(len(h.parts))
	if h.writes == nil {
		if err := h.makeCopier(int(g.store.Layout.ChunkSize())); err != nil {
			return err
		}
	}
	file, err := h.register(g.backing)
	file.syncedLater = !g.backing.Direct
	if err == nil {
		h.growth, h.files = g, append(h.files[:len(g.stack.Backings)], file)
	}
	return err
}

// Unregister undoes Register, also one that has failed.
func (g *Growth) Unregister(of ublk.Handler) error {
	h, ok := of.(*handler)
	if !ok {
		return fmt.Errorf("a handler of another stack: %w", unix.EINVAL)
	}
	if h.growth != g {
		return nil // Register was not called, or has failed
	}
	added := &h.files[len(g.stack.Backings)]
	h.growth, h.files = nil, h.files[:len(g.stack.Backings)]
	return h.unregister(added)
}

// Sync writes the file of a plain stack to the medium. From Apply on, no flush of the device goes to it, and
// other devices can be above it. A store below is saved by Stack.Save.
func (g *Growth) Sync() error {
	if len(g.stack.stores) > 0 {
		return nil
	}
	return g.stack.Backings[0].SyncForOthers()
}

// Apply makes the stack serve the snapshot. No request is served, and the threads of the queues
// see the change because they take part in the end of that.
func (g *Growth) Apply() {
	s := g.stack
	number := len(s.Backings)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.stores) == 0 { // the file of a plain stack, which may have grown
		s.Backings[0].Size = max(s.Backings[0].Size, g.origin)
	}
	s.Backings = append(s.Backings[:number:number], g.backing)
	s.backingOf = append(s.backingOf[:len(s.backingOf):len(s.backingOf)], number)
	s.stores = append(s.stores[:len(s.stores):len(s.stores)], g.store)
	s.storeOf = make([]*cow.Store, number+1)
	s.storeOf[number] = g.store
	s.tables, s.plan, s.flush, s.Size = g.tables, g.plan, []int{number}, g.plan.Size()
	g.backing, g.store = nil, nil
}

// Freeze says in what is below the store that it is only read from now on, and shares its lock.
func (g *Growth) Freeze() error {
	s := g.stack
	old, label := s.Backings[g.below], s.stores[len(s.stores)-1].Label()
	var err error
	switch {
	case len(s.stores) > 1:
		err = cow.Freeze(g.lockDir, old.File, label)
	case label != nil:
		if err = basemark.Add(g.lockDir, old.File, label.UUID); errors.Is(err, basemark.ErrUnsupported) {
			err = nil
		}
	}
	return errors.Join(err, old.Share())
}

// Close closes what Apply has not taken.
func (g *Growth) Close() error {
	err := g.closeStore()
	if g.backing != nil {
		g.backing.Unlock()
		err = errors.Join(err, g.backing.Close())
	}
	g.backing = nil
	return err
}

// Discard is Close in the other process, which cannot unlock the file.
func (g *Growth) Discard() error {
	err := g.closeStore()
	if g.backing != nil {
		err = errors.Join(err, g.backing.CloseFiles())
	}
	g.backing = nil
	return err
}

func (g *Growth) closeStore() error {
	if g.store == nil {
		return nil
	}
	err := g.store.Close()
	g.store = nil
	return err
}
