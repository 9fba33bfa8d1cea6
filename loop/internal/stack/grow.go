package stack

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/identity"
	"github.com/ublk-loop/ublk-loop/loop/internal/backing"
	"github.com/ublk-loop/ublk-loop/loop/internal/cow"
	"github.com/ublk-loop/ublk-loop/loop/internal/mapping"
	"github.com/ublk-loop/ublk-loop/transfer/table"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// maxForks is the number of stores that a stack can get while it serves a device.
const maxForks = 32

// Growth is a snapshot on top of a stack that serves a device. The order of calls is Grow,
// Register for each handler, Apply while no request is served, and Freeze; or instead of Apply,
// Unregister for each handler and Close.
type Growth struct {
	stack   *Stack
	tables  *table.Stack
	backing *backing.Backing
	store   *cow.Store
	plan    *mapping.Plan
	below   int // the backing with the store that is only read afterwards
	lockDir string
}

// Grow opens the store of a snapshot on top of the stack. tables are from table.Stack.OnTop.
func (s *Stack) Grow(tables *table.Stack, file *os.File, o *Options) (*Growth, error) {
	g, top, err := s.newGrowth(tables)
	if err != nil {
		return nil, err
	}
	g.lockDir = o.LockDir
	if err := g.open(file, o, top); err != nil {
		return nil, errors.Join(err, g.Close())
	}
	return g, nil
}

// newGrowth returns a growth without a store, and the uppermost store.
func (s *Stack) newGrowth(tables *table.Stack) (*Growth, *cow.Store, error) {
	switch {
	case len(s.layers) > 0:
		return nil, nil, fmt.Errorf("a snapshot above the targets crypt and verity: %w", errors.ErrUnsupported)
	case s.ReadOnly || len(s.stores) == 0:
		return nil, nil, fmt.Errorf("a snapshot above a device without a store for writes: %w", errors.ErrUnsupported)
	}
	g := &Growth{stack: s, tables: tables, below: -1}
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

// open opens the file and the store, and makes the plan. If another process serves the stack, that
// looks at the contents of the store.
func (g *Growth) open(file *os.File, o *Options, top *cow.Store) error {
	s := g.stack
	var err error
	if g.backing, err = s.open(file, false, o); err != nil {
		return err
	}
	for _, b := range s.Backings {
		if b.Identity.Is(g.backing.Identity) {
			return fmt.Errorf("%s is a part of the device: %w", b.Path, unix.EINVAL)
		}
	}
	return g.openStore(top, s.described)
}

// openStore opens the store in the file, and makes the plan.
func (g *Growth) openStore(top *cow.Store, described bool) error {
	s := g.stack
	var err error
	g.store, err = cow.Open(g.backing.File, &cow.Options{
		Format: top.Format(), ChunkBytes: top.Layout.ChunkSize(), OriginSize: s.Size, Block: g.backing.SectorSize, Eager: s.eager,
		Described: described, Failed: s.reportFailure(g.backing.Path),
	})
	if err != nil {
		return fmt.Errorf("store %s: %w", g.backing.Path, err)
	}
	switch {
	case g.store.Layout != top.Layout:
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
	file, err := h.register(g.backing)
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

// Apply makes the stack serve the snapshot. No request is served, and the threads of the queues
// see the change because they take part in the end of that.
func (g *Growth) Apply() {
	s := g.stack
	number := len(s.Backings)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Backings = append(s.Backings[:number:number], g.backing)
	s.backingOf = append(s.backingOf[:len(s.backingOf):len(s.backingOf)], number)
	s.stores = append(s.stores[:len(s.stores):len(s.stores)], g.store)
	s.storeOf = make([]*cow.Store, number+1)
	s.storeOf[number] = g.store
	s.tables, s.plan, s.flush = g.tables, g.plan, []int{number}
	g.backing, g.store = nil, nil
}

// Freeze says in the old store that it is only read from now on, and shares its lock.
func (g *Growth) Freeze() error {
	s := g.stack
	old, store := s.Backings[g.below], s.stores[len(s.stores)-1]
	err := cow.Freeze(g.lockDir, old.File, store.Label())
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
