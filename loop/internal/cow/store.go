package cow

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/loop/internal/mapping"
	"github.com/ublk-loop/ublk-loop/loop/internal/pages"
	"github.com/ublk-loop/ublk-loop/transfer/snapshot"
	"github.com/ublk-loop/ublk-loop/transfer/table"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// Options say what a store is for.
type Options struct {
	Format     table.Format
	ChunkBytes uint32 // of a new store; a store that exists has its own
	OriginSize uint64 // in bytes
	Block      uint32 // logical block of the store's file or disk, or of its encryption, in bytes
	ReadOnly   bool   // the store is not written to
	Direct     bool   // I/O bypasses the page cache
	// Eager completes a first write only when its record is durable.
	Eager bool
	// Others are the other stores of the device, whose indexes take memory as well.
	Others []*Store
	// Described says that another process opens and uses the store. The store then has only what
	// its header says; a new store gets its header.
	Described bool
	// Failed is called when the store becomes invalid or overflows, with the words of
	// Usage.State. The thread of a queue may call it, so it must not block. It can be nil.
	Failed func(state string)
	// Lost is called when a flush of the store has failed, so that data of the caller may be lost. returned says that a
	// flush of the device returns the error. It can be nil.
	Lost func(returned bool)
}

// Store is an open store. The goroutine of Open ends with Close.
type Store struct {
	mapping.Store
	// Eager completes a first write only when its record is durable.
	Eager bool

	file     *os.File
	label    *snapshot.Label // nil if the store has none
	failed   func(state string)
	onLost   func(returned bool)
	format   table.Format
	readOnly bool
	direct   bool
	index    []byte // the memory of the index
	slots    uint64 // of the index, also if another process has it
	state    atomic.Uint32
	// unsavedCount is the number of unsaved records, and waitingCount that of waiting.
	unsavedCount, waitingCount atomic.Int64
	behind                     atomic.Bool  // as in IsBehind
	saves                      atomic.Int32 // that have begun, as in IsSaving

	mu       sync.Mutex // protects what is below
	alloc    *snapshot.Allocator
	given    []uint64          // chunks that are free again
	pending  int               // first writes between Allocate and Add or GiveBack
	unsaved  []snapshot.Record // in the order of Add
	commits  []committer       // who waits until all unsaved records are saved
	waiting  []waiter
	reserved int    // operations in flight that the lists have room for
	area     uint64 // where the next record belongs

	work  chan struct{} // has a value if the goroutine has something to do
	quit  chan struct{} // closed by Close
	ended chan struct{} // closed by the goroutine
	saver
}

// waiter is a write that waits for the first write of a chunk.
type waiter struct {
	chunk  uint64
	answer ublk.AsyncPart
}

// maxUnsaved is the largest number of records that are not saved. At half of it the goroutine
// saves them.
const maxUnsaved = 512

// Open loads the store of a file or disk, or makes a new one in an empty file or disk. The
// caller keeps the file open until after Close.
func Open(file *os.File, o *Options) (*Store, error) {
	s := &Store{
		Eager: o.Eager && o.Format != table.Transient, file: file, failed: o.Failed, onLost: o.Lost, format: o.Format, readOnly: o.ReadOnly, direct: o.Direct,
		work: make(chan struct{}, 1), quit: make(chan struct{}), ended: make(chan struct{}),
	}
	s.State, s.Origin, s.Block = &s.state, o.OriginSize, uint64(o.Block)
	if err := s.load(o); err != nil {
		return nil, errors.Join(err, s.free())
	}
	if o.ReadOnly || o.Described || o.Format == table.Transient {
		close(s.ended)
	} else {
		s.unsaved = make([]snapshot.Record, 0, maxUnsaved)
		go s.run()
	}
	return s, nil
}

// load finds the layout, and loads the index.
func (s *Store) load(o *Options) error {
	size, err := sizeOf(s.file)
	if err != nil {
		return err
	}
	header := snapshot.Header{Valid: true}
	if o.Format == table.Transient {
		header.Layout, err = snapshot.NewLayout(o.ChunkBytes)
	} else {
		header, err = s.header(o, size)
	}
	if err != nil {
		return err
	}
	s.Layout = header.Layout
	if header.Layout.ChunkSize()%o.Block != 0 {
		return fmt.Errorf("chunks of %d bytes with logical blocks of %d: %w", header.Layout.ChunkSize(), o.Block, unix.EINVAL)
	}
	if s.slots, err = s.indexSlots(o); err != nil || o.Described {
		return err
	}
	if err := s.makeIndex(s.slots); err != nil {
		return err
	}
	if o.Format == table.Transient {
		s.alloc = snapshot.NewTransientAllocator(s.Layout, size)
		return nil
	}
	return s.loadRecords(o, header.Valid, size)
}

// header reads the header of a store, or makes a new store.
func (s *Store) header(o *Options, size uint64) (snapshot.Header, error) {
	header, err := s.readHeader(o.ReadOnly)
	if !errors.Is(err, snapshot.ErrNew) || o.ReadOnly {
		return header, err
	}
	layout, err := snapshot.NewLayout(o.ChunkBytes)
	if err == nil {
		err = snapshot.CheckEmpty(s.file, size, layout)
	}
	if err == nil {
		err = snapshot.Format(s.file, layout)
	}
	return snapshot.Header{Valid: true, Layout: layout}, err
}

// loadRecords loads the records of a persistent store.
func (s *Store) loadRecords(o *Options, valid bool, size uint64) error {
	if !valid {
		s.state.Store(mapping.Invalid)
		s.marked = true
		s.alloc = snapshot.NewAllocator(s.Layout, size, snapshot.State{})
		return s.makeLog(o, snapshot.State{})
	}
	state, err := snapshot.Load(s.file, s.Layout, size, s.Index)
	if err != nil {
		return err
	}
	s.alloc, s.area = snapshot.NewAllocator(s.Layout, size, state), state.Area
	return s.makeLog(o, state)
}

// memoryShare bounds the memory of an index to one part of this many of the machine's memory. The
// header of the store chooses the size of a chunk. The indexes of a device have twice as much. Tests change it.
var memoryShare uint64 = 4

// slotSize is the number of bytes of a slot of an index, a uint32.
const slotSize = 4

// indexSlots returns the length of the index. It refuses one that takes too much memory.
func (s *Store) indexSlots(o *Options) (uint64, error) {
	n, err := snapshot.IndexLength(s.Layout, o.OriginSize)
	if err != nil {
		return 0, err
	}
	if err := CheckIndex(n, s.Layout); err != nil {
		return 0, err
	}
	all := n
	for _, other := range o.Others {
		all += other.slots
	}
	return n, checkMemory(all, 2, fmt.Sprintf("indexes of %d stores", len(o.Others)+1))
}

// makeIndex makes an index of n slots, with all of its memory.
func (s *Store) makeIndex(n uint64) error {
	var err error
	if s.index, err = pages.Map(int(max(n, 1) * slotSize)); err != nil {
		return fmt.Errorf("index of %d chunks: %w", n, err)
	}
	s.Index = snapshot.NewIndex(pages.Slice[uint32](s.index, int(n)))
	return nil
}

// CheckIndex returns an error that wraps ENOMEM if an index of n chunks would take too much of the
// machine's memory.
func CheckIndex(n uint64, l snapshot.Layout) error {
	return checkMemory(n, 1, fmt.Sprintf("an index for chunks of %d bytes", l.ChunkSize()))
}

// checkMemory returns an error for a number of slots that take more than some shares of the memory.
func checkMemory(slots, shares uint64, what string) error {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return fmt.Errorf("get the size of the memory: %w", err)
	}
	if slots*slotSize <= info.Totalram*uint64(info.Unit)/memoryShare*shares {
		return nil
	}
	err := fmt.Errorf("%s: %d MiB, more than %d/%d of the memory: %w", what, slots*slotSize>>20, shares, memoryShare, unix.ENOMEM)
	return hint.Add(err, "a store with larger chunks needs less")
}

// Close saves all records, and ends the goroutine. No request may use the store any more.
func (s *Store) Close() error {
	close(s.quit)
	<-s.ended
	var err error
	switch {
	case s.saver.log == nil || s.readOnly:
	case s.state.Load() == mapping.Invalid:
		err = s.writeInvalid() // the goroutine may have ended before that
	case s.unsavedCount.Load() > 0:
		_, err = s.save(s.unsaved)
	}
	return errors.Join(err, s.free())
}

func (s *Store) free() error {
	var errs []error
	for _, mem := range [][]byte{s.index, s.block, s.memory, s.whole, s.zeroes} {
		if mem != nil {
			errs = append(errs, unix.Munmap(mem))
		}
	}
	s.index, s.block, s.memory, s.whole, s.zeroes = nil, nil, nil, nil, nil
	return errors.Join(errs...)
}

// sizeOf returns the size of a file or disk.
func sizeOf(file *os.File) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil {
		return 0, fmt.Errorf("stat the store: %w", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return uint64(st.Size), nil
	}
	size, err := unix.Seek(int(file.Fd()), 0, unix.SEEK_END) // no ioctl: a process in a sandbox makes none
	if err != nil {
		return 0, fmt.Errorf("get the size of the store: %w", err)
	}
	return uint64(size), nil
}
