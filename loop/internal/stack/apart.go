package stack

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

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
}

// WorkBacking is a file or disk of a Work, whose lock is held by the process that has opened it.
type WorkBacking struct {
	Size     uint64 // in bytes
	Sector   uint32 // size of its logical blocks
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
	w = &Work{Text: s.tables.Text(), ReadOnly: s.ReadOnly, BackingOf: s.backingOf, HasZeroes: s.zeroes != nil}
	if w.Major, err = mapperMajor("/proc/devices"); err != nil {
		return nil, nil, err
	}
	for _, b := range s.Backings {
		w.Backings = append(w.Backings, WorkBacking{b.Size, b.SectorSize, b.IsDisk, b.ReadOnly, b.Direct, b.Lock != nil})
		fds = append(fds, b.FD)
		if b.Lock != nil {
			fds = append(fds, b.Lock.RingFD())
		}
	}
	if s.zeroes != nil {
		fds = append(fds, int(s.zeroes.Fd()))
	}
	return w, fds, nil
}

// Target returns the stack to serve, in the other process. It takes over the descriptors.
// extraParts is as in Target, and keys are as in Options.
func (w *Work) Target(fds []int, extraParts int, keys *transfer.Secret) (*Target, *Stack, error) {
	tables, err := table.Parse([]byte(w.Text), table.Options{DeviceMapperMajor: w.Major})
	if err != nil {
		return nil, nil, err
	}
	s := &Stack{tables: tables, ReadOnly: w.ReadOnly, backingOf: w.BackingOf, failures: make(chan StoreFailure, failuresAhead)}
	if err := s.takeFiles(w, fds); err != nil {
		return nil, nil, err
	}
	if err := s.makeAll(&Options{Keys: keys}); err != nil {
		return nil, nil, err // the process ends
	}
	return &Target{Stack: s, ExtraParts: extraParts}, s, nil
}

// takeFiles takes over the descriptors of a Work.
func (s *Stack) takeFiles(w *Work, fds []int) error {
	next := func() *os.File {
		if len(fds) == 0 {
			return nil
		}
		fd := fds[0]
		fds = fds[1:]
		return os.NewFile(uintptr(fd), "file")
	}
	missing := fmt.Errorf("too few descriptors: %w", unix.EBADMSG)
	for _, of := range w.Backings {
		b := &backing.Backing{File: next(), Size: of.Size, SectorSize: of.Sector, IsDisk: of.IsDisk, ReadOnly: of.ReadOnly, Direct: of.Direct}
		if b.File == nil {
			return missing
		}
		b.FD = int(b.File.Fd())
		if of.IsLocked {
			rings := next()
			if rings == nil {
				return missing
			}
			b.Lock = filelock.OfRings(rings)
		}
		s.Backings = append(s.Backings, b)
	}
	if w.HasZeroes {
		if s.zeroes = next(); s.zeroes == nil {
			return missing
		}
	}
	if len(w.BackingOf) != len(s.tables.Devices()) {
		return fmt.Errorf("%d files for %d devices of a table: %w", len(w.BackingOf), len(s.tables.Devices()), unix.EBADMSG)
	}
	return nil
}
