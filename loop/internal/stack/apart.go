package stack

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/rawname"
	"github.com/ublk-loop/ublk-loop/loop/internal/backing"
	"github.com/ublk-loop/ublk-loop/loop/internal/filelock"
	"github.com/ublk-loop/ublk-loop/transfer"
	"github.com/ublk-loop/ublk-loop/transfer/table"
)

// Work describes a stack to another process, which serves it and opens nothing.
type Work struct {
	Text      string        // of the tables, without keys
	Major     uint32        // of device mapper; 0 if the kernel has none
	ReadOnly  bool          // the device is only read
	Backings  []WorkBacking // each once
	BackingOf []int         // by number of the device in the tables
	HasZeroes bool          // /dev/zero is the last descriptor
	Eager     bool          // as in Options
}

// WorkBacking is a file or disk of a Work, whose lock is held by the process that has opened it.
type WorkBacking struct {
	Path     rawname.String // for messages
	Size     uint64         // in bytes
	Sector   uint32         // size of its logical blocks
	IsDisk   bool
	ReadOnly bool
	Direct   bool // I/O bypasses the page cache
	IsLocked bool // the lock of its rings is the next descriptor
}

// MaxWorkFDs is the largest number of descriptors of a Work: of each file and its lock, and of
// /dev/zero.
const MaxWorkFDs = 2*MaxFiles + 1

// Work returns the description of the stack, and its descriptors, which stay the stack's.
func (s *Stack) Work() (w *Work, fds []int, err error) {
	w = &Work{Text: s.tables.Text(), ReadOnly: s.ReadOnly, BackingOf: s.backingOf, HasZeroes: s.zeroes != nil, Eager: s.eager}
	if w.Major, err = mapperMajor(); err != nil {
		return nil, nil, err
	}
	for _, b := range s.Backings {
		of, own := describeBacking(b)
		w.Backings, fds = append(w.Backings, of), append(fds, own...)
	}
	if s.zeroes != nil {
		fds = append(fds, int(s.zeroes.Fd()))
	}
	return w, fds, nil
}

// describeBacking returns the description of a file or disk, and its descriptors.
func describeBacking(b *backing.Backing) (w WorkBacking, fds []int) {
	w, fds = WorkBacking{rawname.String(b.Path), b.Size, b.SectorSize, b.IsDisk, b.ReadOnly, b.Direct, b.Lock != nil}, []int{b.FD}
	if b.Lock != nil {
		fds = append(fds, b.Lock.RingFD())
	}
	return w, fds
}

// Target returns the stack to serve, in the other process. It takes over the descriptors.
// extraParts is as in Target, and keys are as in Options.
func (w *Work) Target(fds []int, extraParts int, keys *transfer.Secret) (*Target, *Stack, error) {
	given := &descriptors{fds}
	defer given.close()
	tables, err := table.Parse([]byte(w.Text), table.Options{DeviceMapperMajor: w.Major})
	if err != nil {
		return nil, nil, err
	}
	s := &Stack{tables: tables, ReadOnly: w.ReadOnly, backingOf: w.BackingOf, failures: make(chan StoreFailure, failuresAhead), eager: w.Eager}
	if err = s.takeFiles(w, given); err == nil {
		err = s.makeAll(&Options{Keys: keys, Eager: w.Eager, forOther: true})
	}
	if err != nil {
		return nil, nil, errors.Join(err, s.CloseServed())
	}
	return &Target{Stack: s, ExtraParts: extraParts}, s, nil
}

// errMissing is the error of a description with too few descriptors.
var errMissing = fmt.Errorf("too few descriptors: %w", unix.EBADMSG)

// descriptors are those that came with a description, as far as nothing has taken them over.
type descriptors struct{ left []int }

// take returns the first n, which are the caller's then.
func (d *descriptors) take(n int) ([]int, error) {
	if len(d.left) < n {
		return nil, errMissing
	}
	taken := d.left[:n]
	d.left = d.left[n:]
	return taken, nil
}

func (d *descriptors) close() {
	for _, fd := range d.left {
		_ = unix.Close(fd)
	}
}

// takeFiles takes over the descriptors of a Work.
func (s *Stack) takeFiles(w *Work, given *descriptors) error {
	for i := range w.Backings {
		b, err := w.Backings[i].take(given)
		if err != nil {
			return err
		}
		s.Backings = append(s.Backings, b)
	}
	if w.HasZeroes {
		fds, err := given.take(1)
		if err != nil {
			return err
		}
		s.zeroes = os.NewFile(uintptr(fds[0]), "/dev/zero")
	}
	if n := len(s.tables.Devices()); n != len(w.BackingOf) {
		return fmt.Errorf("files: %d, devices of the table: %d: %w", len(w.BackingOf), n, unix.EBADMSG)
	}
	return nil
}

// take takes over the next descriptors.
func (w *WorkBacking) take(given *descriptors) (*backing.Backing, error) {
	n := 1
	if w.IsLocked {
		n = 2
	}
	fds, err := given.take(n)
	if err != nil {
		return nil, err
	}
	b := &backing.Backing{
		FD: fds[0], File: os.NewFile(uintptr(fds[0]), string(w.Path)), Path: string(w.Path),
		Size: w.Size, SectorSize: w.Sector, IsDisk: w.IsDisk, ReadOnly: w.ReadOnly, Direct: w.Direct,
	}
	if w.IsLocked {
		b.Lock = filelock.OfRings(os.NewFile(uintptr(fds[1]), "lock"))
	}
	return b, nil
}

// CloseServed is Close in the other process, where the locks are another's.
func (s *Stack) CloseServed() error {
	errs := []error{s.closeTransfers(), s.closeStores(), s.arenas.free()}
	for _, b := range s.Backings {
		errs = append(errs, b.CloseFiles())
	}
	if s.zeroes != nil {
		errs = append(errs, s.zeroes.Close())
	}
	return errors.Join(errs...)
}

// GrowthWork describes a Growth to the other process. Its descriptors are the file and its lock.
type GrowthWork struct {
	Text    string // of the tables
	Major   uint32 // as in Work
	Origin  uint64 // size of what is below the store
	Backing WorkBacking
}

// Work returns the description of a growth, and its descriptors, which stay the growth's.
func (g *Growth) Work() (w *GrowthWork, fds []int, err error) {
	w = &GrowthWork{Text: g.tables.Text(), Origin: g.origin}
	if w.Major, err = mapperMajor(); err != nil {
		return nil, nil, err
	}
	w.Backing, fds = describeBacking(g.backing)
	return w, fds, nil
}

// GrowFor is Grow in the other process. It takes over the descriptors.
func (s *Stack) GrowFor(w *GrowthWork, fds []int) (*Growth, error) {
	given := &descriptors{fds}
	defer given.close()
	b, err := w.Backing.take(given)
	if err != nil {
		return nil, err
	}
	tables, err := table.Parse([]byte(w.Text), table.Options{DeviceMapperMajor: w.Major})
	if err != nil {
		return nil, errors.Join(err, b.CloseFiles())
	}
	g, top, err := s.newGrowth()
	if err != nil {
		return nil, errors.Join(err, b.CloseFiles())
	}
	g.backing, g.tables, g.origin = b, tables, w.Origin
	if err := g.openStore(top, false); err != nil {
		return nil, errors.Join(err, g.Discard())
	}
	return g, nil
}

// MergeFor is NewMerge in the other process, with the base open for writing. It takes over the file.
func (s *Stack) MergeFor(file *os.File) (*Merge, error) {
	m, err := s.findMerge()
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	m.file, m.isLockedByOther = file, true
	if err := m.makeMemory(); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

// File returns the base, open for writing.
func (m *Merge) File() *os.File { return m.file }

// ReloadWork describes a Reload to the other process. Its descriptors are the new files, each with its lock.
type ReloadWork struct {
	Text  string         // of the tables
	Major uint32         // as in Work
	Files []ReloadedFile // in the order of table.Stack.Devices
}

// ReloadedFile is a file of a ReloadWork: one that the stack has, or a new one.
type ReloadedFile struct {
	Has int          // its number in the stack
	New *WorkBacking `json:",omitempty"`
}

// Work returns the description of a reload, and its descriptors, which stay the reload's.
func (r *Reload) Work() (w *ReloadWork, fds []int, err error) {
	w = &ReloadWork{Text: r.next.tables.Text()}
	if w.Major, err = mapperMajor(); err != nil {
		return nil, nil, err
	}
	for _, b := range r.next.Backings {
		if at := slices.Index(r.stack.Backings, b); at >= 0 {
			w.Files = append(w.Files, ReloadedFile{Has: at})
			continue
		}
		of, own := describeBacking(b)
		w.Files, fds = append(w.Files, ReloadedFile{New: &of}), append(fds, own...)
	}
	return w, fds, nil
}

// ReloadFor is Reload in the other process. It takes over the descriptors.
func (s *Stack) ReloadFor(w *ReloadWork, fds []int) (*Reload, error) {
	given := &descriptors{fds}
	defer given.close()
	tables, err := table.Parse([]byte(w.Text), table.Options{DeviceMapperMajor: w.Major})
	if err != nil {
		return nil, err
	}
	r := &Reload{stack: s, next: &Stack{tables: tables, failures: s.failures}}
	err = r.takeFiles(w, given)
	if err == nil {
		err = s.checkReload(tables, len(w.Files))
	}
	if err == nil {
		err = r.openStores(&Options{forOther: true})
	}
	if err != nil {
		return nil, errors.Join(err, r.Discard())
	}
	return r, nil
}

// takeFiles takes over the descriptors of the new files.
func (r *Reload) takeFiles(w *ReloadWork, given *descriptors) (err error) {
	n := r.next
	for i, f := range w.Files {
		var b *backing.Backing
		switch {
		case f.New != nil:
			if b, err = f.New.take(given); err != nil {
				return err
			}
			r.backings = append(r.backings, b)
		case f.Has >= 0 && f.Has < len(r.stack.Backings):
			b = r.stack.Backings[f.Has]
		default:
			return fmt.Errorf("file %d of the device: %w", f.Has, unix.EBADMSG)
		}
		n.backingOf, n.Backings = append(n.backingOf, i), append(n.Backings, b)
	}
	return nil
}
