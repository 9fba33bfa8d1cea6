package stack

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/identity"
	"github.com/ublk-loop/ublk-loop/loop/internal/backing"
	"github.com/ublk-loop/ublk-loop/loop/internal/basemark"
	"github.com/ublk-loop/ublk-loop/loop/internal/cow"
	"github.com/ublk-loop/ublk-loop/loop/internal/mapping"
	"github.com/ublk-loop/ublk-loop/transfer/table"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// Reload gives a stack that serves a device other files below the store that it writes to. The
// order of calls is Stack.Reload, Register for each handler, Apply while no request is served,
// Unregister for each handler, and Close. Without Apply, the last two undo the others.
type Reload struct {
	stack *Stack
	next  *Stack // what Apply makes of the stack

	origin   uint64 // size of what is below the store that is written to
	handlers []*reloading
	// The stack does not use what is below: before Apply what is new, and then what was replaced.
	backings []*backing.Backing
	stores   []*cow.Store
}

// reloading is what a handler has of a Reload.
type reloading struct {
	handler *handler
	files   []backingFile // handler.files after Apply
	unused  []backingFile
}

// Reload opens the files of other tables, in the order of table.Stack.Devices. The tables are
// snapshots. The last of them has the same store as before, and the same size.
func (s *Stack) Reload(tables *table.Stack, files []*os.File, o *Options) (*Reload, error) {
	if err := s.checkReload(tables, len(files)); err != nil {
		return nil, err
	}
	r := &Reload{stack: s, next: &Stack{tables: tables, failures: s.failures}}
	err := r.openAll(files, o)
	if err == nil {
		err = r.openStores(&Options{LockDir: o.LockDir, Described: s.described})
	}
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

// checkReload returns an error unless old and new tables are snapshots, with the same one on top, and the
// same cover above it.
func (s *Stack) checkReload(tables *table.Stack, files int) error {
	if s.hasLayersBelow() || s.ReadOnly || !slices.ContainsFunc(s.storeOf, func(store *cow.Store) bool { return store != nil }) {
		return fmt.Errorf("other files below it: %w", errors.ErrUnsupported)
	}
	var tops []table.Snapshot
	for _, t := range []*table.Stack{s.tables, tables} {
		below := t.Uncovered()
		if len(below) == 0 {
			return fmt.Errorf("no snapshot below the target crypt: %w", errors.ErrUnsupported)
		}
		for i := range below {
			line, ok := below[i].Lines[0].Target.(*table.Snapshot)
			if !ok || len(below[i].Lines) != 1 || line.Format == table.Transient {
				return fmt.Errorf("table %d is not a persistent snapshot: %w", i+1, errors.ErrUnsupported)
			}
			if i == len(below)-1 {
				tops = append(tops, *line)
			}
		}
	}
	tops[0].Origin, tops[1].Origin = "", ""
	switch {
	case tops[0] != tops[1] || tables.Tables[len(tables.Tables)-1].ReadOnly:
		return fmt.Errorf("the last table has another store: %w", unix.EINVAL)
	case !sameCover(s.tables.Cover(), tables.Cover()):
		return fmt.Errorf("the last table encrypts in another way: %w", unix.EINVAL)
	case tables.Sectors() != s.tables.Sectors() || coveredBytes(tables) != coveredBytes(s.tables):
		return fmt.Errorf("%d sectors, the device has %d: %w", tables.Sectors(), s.tables.Sectors(), unix.EINVAL)
	case len(tables.Devices()) != files:
		return fmt.Errorf("files: %d, devices of the table: %d: %w", files, len(tables.Devices()), unix.EINVAL)
	}
	return nil
}

// openAll takes the open files of the stack, and opens the others for reading.
func (r *Reload) openAll(files []*os.File, o *Options) error {
	s, n := r.stack, r.next
	written := Written(n.tables, n.ReadOnly)
	for i, file := range files {
		object, err := identity.Of(file)
		if err != nil {
			return n.tables.InDevice(i, err)
		}
		is := func(b *backing.Backing) bool { return b.Identity.Is(object) }
		if slices.ContainsFunc(n.Backings, is) {
			return n.tables.InDevice(i, fmt.Errorf("a file with two names: %w", errors.ErrUnsupported))
		}
		var b *backing.Backing
		if at := slices.IndexFunc(s.Backings, is); at >= 0 {
			b = s.Backings[at]
		} else if b, err = s.open(file, true, true, o); err == nil {
			r.backings = append(r.backings, b)
			err = s.checkBlock(b)
		}
		if err == nil && b.ReadOnly == written[i] {
			err = fmt.Errorf("the device has it for another use: %w", unix.EINVAL)
		}
		if err != nil {
			return n.tables.InDevice(i, err)
		}
		n.backingOf, n.Backings = append(n.backingOf, len(n.Backings)), append(n.Backings, b)
	}
	return nil
}

// openStores takes the stores of the stack, opens the others, and makes the plan.
func (r *Reload) openStores(o *Options) error {
	n := r.next
	sizes := make([]table.DeviceSize, len(n.Backings))
	for i, b := range n.Backings {
		sizes[i] = table.DeviceSize{Sectors: b.Size >> sectorShift, Block: b.SectorSize}
	}
	if _, err := n.tables.CheckDevices(sizes); err != nil {
		return err
	}
	n.storeOf = make([]*cow.Store, len(n.Backings))
	numbers := make(map[string]int)
	for i, device := range n.tables.Devices() {
		numbers[device] = i
	}
	var stores []mapping.Store
	for place, t := range table.Targets[*table.Snapshot](n.tables) {
		number := numbers[n.tables.StoreDevice(t)]
		err := n.checkUses(number, t.Store)
		var store *cow.Store
		if err == nil {
			store, err = r.openStore(number, t, n.originSectors(t, numbers, sizes)<<sectorShift, o)
		}
		if err != nil {
			return place.Wrap(err)
		}
		n.stores, stores = append(n.stores, store), append(stores, store.Store)
	}
	var err error
	if n.plan, err = mapping.New(n.tables, stores); err != nil {
		return err
	}
	for _, device := range n.plan.FlushDevices() {
		n.flush = appendNew(n.flush, n.backingOf[device])
	}
	return nil
}

// openStore returns the store of a backing. A new one gets the mark that the stores above need it.
func (r *Reload) openStore(number int, t *table.Snapshot, origin uint64, o *Options) (*cow.Store, error) {
	s, b := r.stack, r.next.Backings[number]
	if store := s.storeIn(b); store != nil {
		if !b.ReadOnly {
			r.next.storeOf[number], r.origin = store, origin
		}
		return store, store.CheckOrigin(origin)
	}
	store, err := cow.Open(b.File, &cow.Options{
		Format: t.Format, ChunkBytes: t.Chunk << sectorShift, OriginSize: origin, Block: b.SectorSize, ReadOnly: true, Others: r.indexes(), Described: o.Described,
	})
	if err != nil {
		return nil, fmt.Errorf("store %s: %w", b.Path, err)
	}
	r.stores = append(r.stores, store)
	if !o.Described && store.Usage().State != "" { // otherwise the other process looks
		return nil, fmt.Errorf("store %s: %s: %w", b.Path, store.Usage().State, unix.EIO)
	}
	top := s.stores[len(s.stores)-1].Label()
	if top == nil || o.forOther {
		return store, nil
	}
	if err := basemark.Add(o.LockDir, b.File, top.UUID); err != nil && !errors.Is(err, basemark.ErrUnsupported) {
		return nil, fmt.Errorf("%s: %w", b.Path, err)
	}
	return store, nil
}

// storeIn returns the store in a file or disk of the stack, nil if it has none.
func (s *Stack) storeIn(b *backing.Backing) *cow.Store {
	for i, device := range s.tables.Devices() {
		if s.Backings[s.backingOf[i]] != b {
			continue
		}
		for n := range s.tables.Tables {
			if t, ok := s.tables.Tables[n].Lines[0].Target.(*table.Snapshot); ok && t.Store == device {
				return s.stores[n] // each table is a snapshot
			}
		}
	}
	return nil
}

// Files returns the paths and identities of the files and disks, in the order of the new tables.
func (r *Reload) Files() []*backing.Backing { return r.next.Backings }

// Register puts the new files in the ring of a handler, on its thread.
func (r *Reload) Register(of ublk.Handler) error {
	h, ok := of.(*handler)
	if !ok {
		return fmt.Errorf("a handler of another stack: %w", unix.EINVAL)
	}
	w := &reloading{handler: h}
	r.handlers = append(r.handlers, w)
	for _, b := range r.next.Backings {
		if at := slices.Index(r.stack.Backings, b); at >= 0 {
			w.files = append(w.files, h.files[at])
			continue
		}
		file, err := h.register(b)
		if err != nil {
			return err
		}
		w.files, w.unused = append(w.files, file), append(w.unused, file)
	}
	return nil
}

// Sync does nothing: the device only reads the files that it loses.
func (*Reload) Sync() error { return nil }

// Apply makes the stack use the new tables. No request is served, and the threads of the queues
// see the change because they take part in the end of that.
func (r *Reload) Apply() {
	s, n := r.stack, r.next
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range r.handlers {
		w.unused = w.unused[:0]
		for at, b := range s.Backings {
			if !slices.Contains(n.Backings, b) {
				w.unused = append(w.unused, w.handler.files[at])
			}
		}
		w.handler.files = w.files
	}
	isNew := func(b *backing.Backing) bool { return slices.Contains(n.Backings, b) }
	r.backings = slices.DeleteFunc(slices.Clone(s.Backings), isNew)
	r.stores = slices.DeleteFunc(slices.Clone(s.stores), func(store *cow.Store) bool { return slices.Contains(n.stores, store) })
	s.Backings, s.backingOf, s.stores, s.storeOf = n.Backings, n.backingOf, n.stores, n.storeOf
	s.tables, s.plan, s.flush = n.tables, n.plan, n.flush
	s.stores[len(s.stores)-1].Origin = r.origin
}

// Unregister removes what the stack does not use from the ring of a handler, on its thread.
func (r *Reload) Unregister(of ublk.Handler) error {
	var errs []error
	for _, w := range r.handlers {
		if w.handler != of {
			continue
		}
		for i := range w.unused {
			errs = append(errs, w.handler.unregister(&w.unused[i]))
		}
		w.unused = nil
	}
	return errors.Join(errs...)
}

// Close closes what the stack does not use. No other goroutine queries these files.
func (r *Reload) Close() error {
	return r.closeWith(func(b *backing.Backing) error {
		b.Unlock()
		return b.Close()
	})
}

// Discard is Close in the other process, which cannot unlock the files.
func (r *Reload) Discard() error { return r.closeWith((*backing.Backing).CloseFiles) }

func (r *Reload) closeWith(closeOne func(*backing.Backing) error) error {
	var errs []error
	for _, store := range r.stores {
		errs = append(errs, store.Close())
	}
	for _, b := range r.backings {
		errs = append(errs, closeOne(b))
	}
	r.stores, r.backings = nil, nil
	return errors.Join(errs...)
}
