package cow

import (
	"errors"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/transfer/snapshot"
	"github.com/ublk-loop/ublk-loop/transfer/table"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// Reserve makes room in the lists for more operations in flight, so that the I/O path allocates no
// memory. Each operation waits for at most one thing, and has at most one chunk.
func (s *Store) Reserve(operations int) {
	s.logMu.Lock() // no commit uses asking
	defer s.logMu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reserved += operations
	s.given = slices.Grow(s.given, s.reserved-len(s.given))
	s.waiting = slices.Grow(s.waiting, s.reserved-len(s.waiting))
	s.commits = grown(s.commits, s.reserved+goroutines)
	s.asking = grown(s.asking[:0], s.reserved+goroutines)
}

// goroutines is more than the number of goroutines that call Save at once.
const goroutines = 4

func grown(list []committer, room int) []committer { return slices.Grow(list, room-len(list)) }

// Allocate returns a chunk of the store for a chunk of the origin that the caller has claimed.
// If the store is full, it drops the claim, changes the state of the store as the kernel does,
// and returns EIO.
func (s *Store) Allocate(old uint64) (replacement uint64, errno int32) {
	s.mu.Lock()
	replacement, err := s.allocate()
	if err == nil {
		s.pending++
	}
	s.mu.Unlock()
	if err == nil {
		return replacement, 0
	}
	if s.format == table.PersistentOverflow {
		s.overflow()
	} else {
		s.invalidate()
	}
	s.Drop(old)
	return 0, -int32(unix.EIO)
}

// allocate gives out a chunk. The store may have grown since the last call. The caller holds
// the lock.
func (s *Store) allocate() (uint64, error) {
	if n := len(s.given); n > 0 {
		chunk := s.given[n-1]
		s.given = s.given[:n-1]
		return chunk, nil
	}
	chunk, err := s.alloc.Allocate()
	if !errors.Is(err, snapshot.ErrFull) {
		return chunk, err
	}
	size, err := sizeOf(s.file)
	if err != nil {
		return 0, err
	}
	s.alloc.Resize(size)
	return s.alloc.Allocate()
}

// Add records a first write whose data the store has. Without Eager, it also publishes the
// chunk. It returns false if too many records are not saved; the caller then calls it again
// after a Commit.
func (s *Store) Add(r snapshot.Record) bool {
	if !s.add(r) {
		return false
	}
	if !s.Eager {
		s.Publish(r)
	}
	return true
}

func (s *Store) add(r snapshot.Record) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.format == table.Transient {
		s.pending--
		return true
	}
	if len(s.unsaved) == cap(s.unsaved) {
		return false
	}
	s.pending--
	s.unsaved = append(s.unsaved, r)
	s.unsavedCount.Add(1)
	if len(s.unsaved) == cap(s.unsaved)/2 {
		s.wake()
	}
	return true
}

// Publish ends a first write: the data of the chunk is in the store from now on.
func (s *Store) Publish(r snapshot.Record) {
	s.Index.Publish(r.Old, r.New)
	s.answerWaiting(r.Old)
}

// Drop ends the claim of a chunk. The data is in the origin.
func (s *Store) Drop(old uint64) {
	s.Index.Drop(old)
	s.answerWaiting(old)
}

// GiveBack is Drop for a first write that has failed, with the chunk of the store that it had.
func (s *Store) GiveBack(r snapshot.Record) {
	s.mu.Lock()
	s.given = append(s.given, r.New)
	s.pending--
	s.commitIfLast()
	s.mu.Unlock()
	s.Drop(r.Old)
}

// Wait answers when the first write of a chunk, or its merge, has ended. It returns false, and
// does not answer, if neither is going on.
func (s *Store) Wait(old uint64, answer ublk.AsyncPart) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	// The count comes before the look-up, and in answerWaiting after the change of the index.
	// So one of the two sees what the other did.
	s.waitingCount.Add(1)
	if slot := s.Index.Lookup(old); slot.IsNone() || slot.Writable() {
		s.waitingCount.Add(-1)
		return false
	}
	s.waiting = append(s.waiting, waiter{old, answer})
	return true
}

// answerWaiting answers those who wait for a chunk.
func (s *Store) answerWaiting(old uint64) {
	if s.waitingCount.Load() == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting = slices.DeleteFunc(s.waiting, func(w waiter) bool {
		if w.chunk != old {
			return false
		}
		w.answer.Done(0)
		s.waitingCount.Add(-1)
		return true
	})
}
