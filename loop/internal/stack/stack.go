package stack

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/identity"
	"github.com/ublk-loop/ublk-loop/loop/internal/backing"
	"github.com/ublk-loop/ublk-loop/loop/internal/cow"
	"github.com/ublk-loop/ublk-loop/loop/internal/mapping"
	"github.com/ublk-loop/ublk-loop/transfer"
	"github.com/ublk-loop/ublk-loop/transfer/table"
)

// MaxFiles is the largest number of files and disks below a stack.
const MaxFiles = 100

const (
	fileSector  = 512                  // the sector size of files: the kernel's for a loop device
	sectorShift = transfer.SectorShift // the binary logarithm of the unit of tables
)

// Options say how to open the files and disks. Those without a comment are as in backing.Options, for
// each file and disk.
type Options struct {
	LockDir    string
	ReadOnly   bool // the device is only read
	Shared     bool
	DirectIO   backing.Switch
	MaxIOBytes uint32
	KeepSpace  bool
	// Eager completes a first write to a chunk of a snapshot only when it is durable.
	Eager bool
	// Keys are the keys of the lines with the target crypt, one after another; nil if there
	// are none. The caller closes them.
	Keys *transfer.Secret
	// Passed are the open files of the program that this one has replaced, each once. They
	// are not opened again. The stack owns them, unless Open returns an error. Nil opens all.
	Passed []backing.Passed
	// Described says that another process serves the stack (Work), so that this one needs no
	// memory for requests.
	Described bool
	// forOther says that this is the other process: the files below snapshots are marked.
	forOther bool
}

// Stack is a stack of tables with its open files and disks. While it serves a device, only Growth.Apply
// and Reload.Apply change it, when the handlers have no request. So the handlers need no lock.
type Stack struct {
	mu sync.RWMutex // for other goroutines; protects what the two change

	// Backings are the files and disks, each once.
	Backings []*backing.Backing
	// Size is the size of the device in bytes.
	Size     uint64
	ReadOnly bool

	tables     *table.Stack
	plan       *mapping.Plan
	backingOf  []int               // by number of the device in the tables
	flush      []int               // backings that a flush goes to
	zeroes     *os.File            // /dev/zero; nil if no part of the device is zero
	transfers  []transfer.Transfer // of the lines with the target crypt
	layers     []layer             // in the order of mapping.Plan.Layers
	verities   int                 // layers that are verity
	corrupt    *corruptions
	stores     []*cow.Store // of the snapshots, in the order of the text
	storeOf    []*cow.Store // by number of the backing; nil if it has no store that is written to
	failures   chan StoreFailure
	lost       backing.Failures // of all queues
	maxIOAsked uint32
	passed     bool // the backings have the files of Options.Passed
	described  bool // as in Options
	eager      bool

	memoryMu sync.Mutex // protects arenas
	arenas   arenas
}

// Open opens the files and disks of a stack, from backing.OpenPath, in the order of
// table.Stack.Devices. An error that a line of the tables causes is a *table.StackError.
func Open(files []*os.File, tables *table.Stack, o *Options) (*Stack, error) {
	s := &Stack{tables: tables, maxIOAsked: o.MaxIOBytes, passed: o.Passed != nil, described: o.Described, eager: o.Eager}
	s.failures = make(chan StoreFailure, failuresAhead)
	s.ReadOnly = o.ReadOnly || tables.Tables[len(tables.Tables)-1].ReadOnly
	err := s.openAll(files, o)
	if err == nil {
		err = s.makeAll(o)
	}
	if err != nil {
		return nil, errors.Join(err, s.GiveBack())
	}
	return s, nil
}

// makeAll makes what serves requests, when the files and disks are open.
func (s *Stack) makeAll(o *Options) error {
	err := s.makePlan(o)
	if err == nil {
		err = s.makeTransfers(o.Keys)
	}
	if err == nil {
		err = s.makeLayers()
	}
	return err
}

// openAll opens each file or disk once, even if the tables have several names for it.
func (s *Stack) openAll(files []*os.File, o *Options) error {
	if n := len(s.tables.Devices()); n != len(files) {
		return fmt.Errorf("files: %d, devices of the table: %d: %w", len(files), n, unix.EINVAL)
	}
	seen := make(map[identity.File]int)
	written := Written(s.tables, s.ReadOnly)
	for i, file := range files {
		object, err := identity.Of(file)
		if err != nil {
			return s.tables.InDevice(i, err)
		}
		number, found := seen[object]
		if !found {
			b, err := s.open(file, !written[i], table.Has[*table.Snapshot](s.tables), o)
			if err != nil {
				return s.tables.InDevice(i, err)
			}
			number = len(s.Backings)
			seen[object] = number
			s.Backings = append(s.Backings, b)
		}
		if s.Backings[number].ReadOnly == written[i] {
			return s.tables.InDevice(i, fmt.Errorf("written to under one name and only read under another: %w", errors.ErrUnsupported))
		}
		s.backingOf = append(s.backingOf, number)
	}
	return nil
}

// open opens a file or disk. unchanged is as in backing.Options.
func (s *Stack) open(file *os.File, readOnly, unchanged bool, o *Options) (*backing.Backing, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil {
		return nil, fmt.Errorf("stat %s: %w", file.Name(), err)
	}
	opts := &backing.Options{
		LockDir: o.LockDir, ReadOnly: readOnly, Shared: o.Shared, DirectIO: o.DirectIO, MaxIOBytes: o.MaxIOBytes, KeepSpace: o.KeepSpace,
		WholeSectors: true, Unchanged: unchanged,
	}
	if st.Mode&unix.S_IFMT == unix.S_IFREG {
		opts.SectorSize = fileSector
	}
	if o.Passed == nil {
		return backing.Open(file, opts)
	}
	for _, p := range o.Passed {
		if p.File == file {
			return backing.Adopt(p, opts)
		}
	}
	return nil, fmt.Errorf("%s was not passed: %w", file.Name(), unix.ENOENT)
}

// makePlan checks the tables against the sizes of the files and disks, and makes the plan.
func (s *Stack) makePlan(o *Options) error {
	sizes := make([]table.DeviceSize, len(s.backingOf))
	for i, number := range s.backingOf {
		b := s.Backings[number]
		sizes[i] = table.DeviceSize{Sectors: b.Size >> sectorShift, Block: b.SectorSize}
	}
	if _, err := s.tables.CheckDevices(sizes); err != nil {
		return err
	}
	stores, err := s.openStores(sizes, o)
	if err != nil {
		return err
	}
	if s.plan, err = mapping.New(s.tables, stores); err != nil {
		return err
	}
	s.Size = s.plan.Size()
	for _, device := range s.plan.FlushDevices() {
		s.flush = appendNew(s.flush, s.backingOf[device])
	}
	if s.plan.HasZeroes() && s.zeroes == nil {
		s.zeroes, err = os.Open("/dev/zero")
	}
	return err
}

// Devices returns the files and disks in the order of table.Stack.Devices. One of them can be
// there several times, under several names.
func (s *Stack) Devices() (list []*backing.Backing) {
	for _, number := range s.backingOf {
		list = append(list, s.Backings[number])
	}
	return list
}

// appendNew appends a number that a list does not have.
func appendNew(list []int, n int) []int {
	if slices.Contains(list, n) {
		return list
	}
	return append(list, n)
}

// Close closes the files and disks, and wipes the keys.
func (s *Stack) Close() error {
	errs := []error{s.closeTransfers(), s.closeStores(), s.arenas.free()}
	for _, b := range s.Backings {
		errs = append(errs, b.Close())
	}
	if s.zeroes != nil {
		errs = append(errs, s.zeroes.Close())
		s.zeroes = nil
	}
	s.Backings = nil
	return errors.Join(errs...)
}

// Pass returns the open files for the program that replaces this one, each once. The stack
// still owns them.
func (s *Stack) Pass() (list []backing.Passed) {
	for _, b := range s.Backings {
		list = append(list, b.Pass())
	}
	return list
}

// GiveBack is Close for a stack that does not serve the device: the caller owns the files of
// Options.Passed again.
func (s *Stack) GiveBack() error {
	if s.passed {
		for _, b := range s.Backings {
			b.Disown()
		}
	}
	return s.Close()
}

// Unlock is backing.Backing.Unlock for each file and disk.
func (s *Stack) Unlock() {
	for _, b := range s.Backings {
		b.Unlock()
	}
}

// allBackings returns the files and disks for other goroutines than the threads of queues.
func (s *Stack) allBackings() []*backing.Backing {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.Backings
}

// Ask is backing.Backing.Ask for each file and disk.
func (s *Stack) Ask() error {
	for _, b := range s.allBackings() {
		if err := b.Ask(); err != nil {
			return err
		}
	}
	return nil
}

// DropCache is backing.Backing.DropCache for each file and disk.
func (s *Stack) DropCache(stop func() bool) (drop func()) {
	var drops []func()
	for _, b := range s.Backings {
		drops = append(drops, b.DropCache(stop))
	}
	return func() {
		for _, drop := range drops {
			drop()
		}
	}
}

// Direct reports whether all I/O bypasses the page cache.
func (s *Stack) Direct() bool {
	for _, b := range s.Backings {
		if !b.Direct {
			return false
		}
	}
	return true
}

// Checksummer is backing.Backing.Checksummer for the first file or disk with one.
func (s *Stack) Checksummer() (string, error) {
	for _, b := range s.Backings {
		if name, err := b.Checksummer(); name != "" || err != nil {
			return name, err
		}
	}
	return "", nil
}
