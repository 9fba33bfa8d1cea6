package cow

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/eintr"
	"github.com/ublk-loop/ublk-loop/loop/internal/mapping"
	"github.com/ublk-loop/ublk-loop/loop/internal/pages"
	"github.com/ublk-loop/ublk-loop/transfer/snapshot"
)

// A run is a part of a merge: the last records of the list. Between BeginRun and EndRun, reads
// of its chunks get the data of the store, writes to them wait, and no records are saved. So a
// flush with new records waits, too.

// Free returns the number of chunks that first writes can have.
func (s *Store) Free() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.alloc.Left() + uint64(len(s.given))
}

// ReserveFor returns the number of chunks for some bytes, at most an eighth of the store's.
func (s *Store) ReserveFor(bytes uint64) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return min(bytes, s.alloc.Usage(0).Total<<9/8) >> s.Layout.Shift()
}

// Left returns the number of exceptions, saved or not.
func (s *Store) Left() uint64 {
	s.logMu.Lock()
	defer s.logMu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log.Records() + uint64(len(s.unsaved))
}

// BeginRun begins a run of saved records, at most as many as fit into the memory. The device
// keeps its requests during the call, so that no write to the chunks is going on. The run is
// empty, and EndRun is not called, if no record is saved.
func (s *Store) BeginRun(memory []snapshot.Record) ([]snapshot.Record, error) {
	s.logMu.Lock()
	more, err := s.back()
	if err == nil && s.state.Load() != mapping.Usable {
		err = fmt.Errorf("the store is full or invalid: %w", unix.EIO)
	}
	if err != nil || !more {
		s.logMu.Unlock()
		return nil, err
	}
	run := s.log.Last(memory)
	for _, e := range run {
		s.Index.BeginMerge(e.Old)
	}
	return run, nil
}

// maxSorted is the number of free chunks above which Recycle does not sort them.
const maxSorted = 1 << 16

// Recycle makes the chunks of earlier runs free. The device keeps its requests during the call, so
// that no read of these chunks is going on. Without Recycle, the writes during a merge could fill the
// store, and what is not merged yet would be lost. A merge goes backwards, so that the chunks are
// usually the last ones that were given out, and the allocator takes them back.
func (s *Store) Recycle() {
	s.logMu.Lock()
	defer s.logMu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.given = append(s.given, s.freed...)
	s.freed = s.freed[:0]
	if len(s.given) <= maxSorted {
		slices.Sort(s.given)
		for n := len(s.given); n > 0 && s.alloc.Return(s.given[n-1]); n-- {
			s.given = s.given[:n-1]
		}
	}
	s.given = slices.Grow(s.given, s.reserved)
}

// back is snapshot.Log.Back, with the memory of a whole area.
func (s *Store) back() (more bool, err error) {
	if s.whole == nil {
		if s.whole, err = pages.Map(int(s.Layout.ChunkSize())); err != nil {
			return false, fmt.Errorf("area of the store: %w", err)
		}
	}
	if err := s.log.Widen(s.file, s.whole); err != nil {
		return false, fmt.Errorf("read an area of the store: %w", err)
	}
	return s.log.Back(s.file)
}

// EndRun removes the records of a run, if the data of all of its chunks is on the medium of the
// origin. Otherwise copied is an error, and nothing has changed.
func (s *Store) EndRun(run []snapshot.Record, copied error) error {
	defer s.logMu.Unlock()
	err := copied
	if err == nil {
		err = s.remove(len(run))
	}
	for _, e := range run {
		if err == nil {
			s.Index.Drop(e.Old)
			s.freed = append(s.freed, e.New)
		} else {
			s.Index.EndMerge(e.Old)
		}
		s.answerWaiting(e.Old)
	}
	return err
}

// remove removes the last records from the list.
func (s *Store) remove(n int) error {
	s.saves.Add(1)
	defer s.saves.Add(-1)
	b := s.log.Remove(n)
	err := s.writeRecords(b.Records, 0)
	if err != nil {
		s.log.Revert()
		err = fmt.Errorf("remove records: %w", err)
		// The store may lack the records now, and writes to their chunks go on.
		_, again := s.save(nil)
		err = errors.Join(err, again)
	} else {
		s.log.Commit()
	}
	s.reportLost(false)
	if s.Eager && s.log.InDoubt() {
		s.behind.Store(true)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.area = s.log.Area()
	s.countUnsaved()
	return err
}

// Read reads chunks of the store into memory of the caller, which is aligned to pages.
func (s *Store) Read(b []byte, chunk uint64) error {
	for at := s.Layout.Offset(chunk); len(b) > 0; {
		var n int
		err := eintr.Repeat(func() (err error) {
			n, err = unix.Pread(int(s.file.Fd()), b, at)
			return err
		})
		switch {
		case err != nil:
			return fmt.Errorf("read the store: %w", err)
		case n == 0:
			return fmt.Errorf("read the store behind its end: %w", unix.EIO)
		}
		b, at = b[n:], at+int64(n)
	}
	return nil
}

// Empty makes all chunks of the store free again. The device keeps its requests during the
// call, and the store has no exceptions.
func (s *Store) Empty() error {
	size, err := sizeOf(s.file)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.alloc, s.given, s.freed = snapshot.NewAllocator(s.Layout, size, snapshot.State{}), s.given[:0], s.freed[:0]
	return nil
}
