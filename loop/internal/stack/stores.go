package stack

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/loop/internal/cow"
	"github.com/ublk-loop/ublk-loop/loop/internal/mapping"
	"github.com/ublk-loop/ublk-loop/transfer/table"
)

// Written returns which of table.Stack.Devices a device writes to. It only reads origins of
// snapshots.
func Written(of *table.Stack, readOnly bool) []bool {
	tables, names := make([]bool, len(of.Tables)), make(map[string]bool)
	tables[len(tables)-1] = !readOnly && !of.Tables[len(tables)-1].ReadOnly
	for i := len(tables) - 1; i >= 0; i-- {
		for _, l := range of.Tables[i].Lines {
			for _, a := range l.Target.Areas(l.Length) {
				writes := tables[i] && !a.ReadOnly
				if below, ok := of.Table(a.Device); ok {
					tables[below] = tables[below] || writes
				} else {
					names[a.Device] = names[a.Device] || writes
				}
			}
		}
	}
	var list []bool
	for _, device := range of.Devices() {
		list = append(list, names[device])
	}
	return list
}

// Locked returns which of table.Stack.Devices a device locks if they are disks; it locks all files. What it
// does not write to must not change below a snapshot.
func Locked(of *table.Stack, readOnly bool) []bool {
	list := Written(of, readOnly)
	for i := range list {
		list[i] = list[i] || table.Has[*table.Snapshot](of)
	}
	return list
}

// openStores opens the stores of the snapshots. sizes are those of the files and disks.
func (s *Stack) openStores(sizes []table.DeviceSize, o *Options) (stores []mapping.Store, err error) {
	s.storeOf = make([]*cow.Store, len(s.Backings))
	numbers := make(map[string]int)
	for i, device := range s.tables.Devices() {
		numbers[device] = i
	}
	for place, t := range table.Targets[*table.Snapshot](s.tables) {
		store, err := s.openStoreOf(t, numbers, sizes, o)
		if err != nil {
			return stores, place.Wrap(err)
		}
		stores = append(stores, store.Store)
	}
	return stores, nil
}

// openStoreOf opens the store of a snapshot. numbers are those of the files and disks in the text.
func (s *Stack) openStoreOf(t *table.Snapshot, numbers map[string]int, sizes []table.DeviceSize, o *Options) (*cow.Store, error) {
	device := s.tables.StoreDevice(t)
	number := s.backingOf[numbers[device]]
	if err := s.checkUses(number, t.Store); err != nil {
		return nil, err
	}
	if n := s.tables.SizeOf(t.Store); device != t.Store && n != sizes[numbers[device]].Sectors {
		return nil, fmt.Errorf("store %s: its encryption ends after %d sectors: %w", s.Backings[number].Path, n, errors.ErrUnsupported)
	}
	return s.openStore(number, t, s.originSectors(t, numbers, sizes), o)
}

// originSectors returns the size of the origin of a snapshot.
func (s *Stack) originSectors(t *table.Snapshot, numbers map[string]int, sizes []table.DeviceSize) uint64 {
	if i, found := numbers[t.Origin]; found {
		return sizes[i].Sectors
	}
	return s.tables.SizeOf(t.Origin)
}

// openStore opens the store of a snapshot of an origin with some sectors, in a file or disk.
func (s *Stack) openStore(number int, t *table.Snapshot, origin uint64, o *Options) (*cow.Store, error) {
	if t.Format == table.Transient && o.Eager {
		return nil, fmt.Errorf("a transient store, which does not outlive its server: %w", errors.ErrUnsupported)
	}
	b := s.Backings[number]
	store, err := cow.Open(b.File, &cow.Options{
		Format: t.Format, ChunkBytes: t.Chunk << sectorShift, OriginSize: origin << sectorShift, Block: max(b.SectorSize, s.tables.BlockOf(t.Store)),
		ReadOnly: b.ReadOnly, Direct: b.Direct, Eager: o.Eager, Others: s.stores, Described: o.Described, Failed: s.reportFailure(b.Path),
		Lost: s.reportLost,
	})
	if err != nil {
		return nil, fmt.Errorf("store %s: %w", b.Path, err)
	}
	s.stores = append(s.stores, store)
	if b.ReadOnly {
		return store, nil
	}
	s.storeOf[number] = store
	if o.forOther {
		return store, nil
	}
	return store, s.markBase(t, store, o.LockDir)
}

// checkUses refuses a file or disk, and the table that encrypts it, that have a store and
// something else.
func (s *Stack) checkUses(number int, store string) error {
	uses, ofTable := 0, 0
	devices := make(map[string]int)
	for i, device := range s.tables.Devices() {
		devices[device] = s.backingOf[i]
	}
	for i := range s.tables.Tables {
		for _, l := range s.tables.Tables[i].Lines {
			for _, a := range l.Target.Areas(l.Length) {
				if of, found := devices[a.Device]; found && of == number {
					uses++
				}
				if a.Device == store {
					ofTable++
				}
			}
		}
	}
	if uses > 1 || ofTable > 1 {
		return fmt.Errorf("the store %s is used %d times: %w", s.Backings[number].Path, max(uses, ofTable), unix.EINVAL)
	}
	return nil
}

// closeStores closes the stores. Another goroutine may call Usages meanwhile, which must not
// meet a closed store.
func (s *Stack) closeStores() error {
	s.mu.Lock()
	stores := s.stores
	s.stores, s.storeOf = nil, nil
	s.mu.Unlock()
	var errs []error
	for _, store := range stores {
		errs = append(errs, store.Close())
	}
	return errors.Join(errs...)
}

// allStores returns the stores for other goroutines than the threads of queues.
func (s *Stack) allStores() []*cow.Store {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.stores
}

// StoreUsage is the use of a store that the device writes to.
type StoreUsage struct {
	Path string `json:"-"` // which may be long, and the other process knows it
	File int    // number of the file in the stack
	cow.Usage
}

// Usages returns the use of each store that the device writes to.
func (s *Stack) Usages() (list []StoreUsage) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for i, store := range s.storeOf {
		if store != nil {
			list = append(list, StoreUsage{s.Backings[i].Path, i, store.Usage()})
		}
	}
	return list
}

// WithPaths returns the usages that another process has reported, which serves the stack, with the paths of
// the files. There is at most one for each store, and none for another file.
func (s *Stack) WithPaths(reported []StoreUsage) (list []StoreUsage) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for i, store := range s.storeOf {
		n := slices.IndexFunc(reported, func(u StoreUsage) bool { return u.File == i })
		if n < 0 || store == nil {
			continue
		}
		u := reported[n]
		u.Path = s.Backings[i].Path
		if u.State != "" && u.State != cow.Overflow {
			u.State = cow.Invalid
		}
		list = append(list, u)
	}
	return list
}

// HasStore reports whether the device writes to a store.
func (s *Stack) HasStore() bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.ContainsFunc(s.storeOf, func(store *cow.Store) bool { return store != nil })
}

// IsTransient reports whether the device loses its changes with the process.
func (s *Stack) IsTransient() bool {
	return slices.ContainsFunc(s.allStores(), func(store *cow.Store) bool { return store.IsTransient() })
}

// Save makes the stores durable while the device keeps its requests, so that another process
// can open them. It returns an error that wraps errors.ErrUnsupported for a transient store.
func (s *Stack) Save() error {
	for _, store := range s.allStores() {
		if err := store.Save(); err != nil {
			return err
		}
	}
	return nil
}

// hasUnsaved reports whether a store has records that are not saved.
func (h *handler) hasUnsaved() bool {
	for _, store := range h.stack.stores {
		if store.Unsaved() {
			return true
		}
	}
	return false
}

// isBehind reports whether a write has to save records of earlier writes, which a commit could not save.
func (h *handler) isBehind() bool {
	if !h.stack.eager {
		return false
	}
	for _, store := range h.stack.stores {
		if store.IsBehind() {
			return true
		}
	}
	return false
}

// indexes returns the stores whose indexes the device will have: those that stay, and those that were opened so far.
func (r *Reload) indexes() []*cow.Store {
	all := slices.Clone(r.stores)
	for _, b := range r.next.Backings {
		if store := r.stack.storeIn(b); store != nil {
			all = append(all, store)
		}
	}
	return all
}
