package cow

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/loop/internal/mapping"
	"github.com/ublk-loop/ublk-loop/loop/internal/pages"
	"github.com/ublk-loop/ublk-loop/transfer/snapshot"
	"github.com/ublk-loop/ublk-loop/transfer/table"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// saver has what only the goroutine uses.
type saver struct {
	logMu  sync.Mutex // held while the goroutine saves records, and during a run of a merge
	log    *snapshot.Log
	block  []byte // a block for the header
	memory []byte // the part of the current area where the next records belong
	whole  []byte // likewise for the whole area; nil before the first merge
	zeroes []byte // a chunk
	saving []snapshot.Record
	asking []committer
	freed  []uint64 // chunks whose data is in the origin, but which a read may still use
	marked bool     // the header says that the store is invalid
	lost   bool     // a flush has failed, so that data of the caller may be lost
}

// makeLog makes the log.
func (s *Store) makeLog(o *Options, state snapshot.State) error {
	chunk := int(s.Layout.ChunkSize())
	var err error
	block := max(int(o.Block), snapshot.MinChunkSize)
	// The list can begin anywhere in a block.
	if s.memory, err = pages.Map(min(maxUnsaved*snapshot.RecordSize+block, chunk)); err != nil {
		return fmt.Errorf("records: %w", err)
	}
	if s.block, err = pages.Map(snapshot.HeaderBlock); err != nil {
		return fmt.Errorf("header: %w", err)
	}
	if s.zeroes, err = pages.Zeroes(chunk); err != nil {
		return err
	}
	s.saving = make([]snapshot.Record, 0, maxUnsaved)
	s.log, err = snapshot.NewLog(s.Layout, state, s.memory, block)
	return err
}

// Unsaved reports whether a record is not saved, so that a flush has to call Commit.
func (s *Store) Unsaved() bool { return s.unsavedCount.Load() != 0 }

// IsBehind reports whether a commit of an eager store has failed, so that chunks that were published have no
// durable record. Until another one succeeds, each write has to call Commit before it is completed.
func (s *Store) IsBehind() bool { return s.behind.Load() }

// committer is who waits for a commit: a part of a request, or a goroutine.
type committer struct {
	part    ublk.AsyncPart
	isFlush bool         // the request is a flush of the device
	done    chan<- error // nil for a part
}

// Commit makes the store durable, with the records of all earlier Adds. It answers with 0 or
// a negated errno. isFlush says that the answer is that of a flush of the device.
func (s *Store) Commit(answer ublk.AsyncPart, isFlush bool) {
	s.ask(committer{part: answer, isFlush: isFlush})
}

// CommitWithOthers is Commit for a first write. It waits until no other first write is going
// on, as the kernel does, so that the records of all of them are saved at once and in the order
// of their chunks.
func (s *Store) CommitWithOthers(answer ublk.AsyncPart) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.commits = append(s.commits, committer{part: answer})
	s.commitIfLast()
}

// commitIfLast begins a commit for those who wait, if no first write is going on. The caller
// holds the lock.
func (s *Store) commitIfLast() {
	if s.pending == 0 && len(s.commits) > 0 {
		s.wake()
	}
}

// Save is Commit for any goroutine. It returns an error for a transient store, which cannot be
// saved, and one that wraps ENODEV after Close.
func (s *Store) Save() error {
	switch {
	case s.format == table.Transient:
		return fmt.Errorf("save a transient store: %w", errors.ErrUnsupported)
	case s.readOnly:
		return nil
	}
	done := make(chan error, 1)
	s.ask(committer{done: done})
	select {
	case err := <-done:
		return err
	case <-s.ended:
		return unix.ENODEV
	}
}

func (s *Store) ask(c committer) {
	s.mu.Lock()
	s.commits = append(s.commits, c)
	s.mu.Unlock()
	s.wake()
}

// wake makes the goroutine look for work.
func (s *Store) wake() {
	select {
	case s.work <- struct{}{}:
	default:
	}
}

// run is the goroutine.
func (s *Store) run() {
	defer close(s.ended)
	for {
		select {
		case <-s.work:
			s.commit()
		case <-s.quit:
			return
		}
	}
}

// commit saves the records that exist now, and answers the calls of Commit so far.
func (s *Store) commit() {
	s.saves.Add(1)
	s.logMu.Lock()
	defer s.logMu.Unlock()
	s.mu.Lock()
	s.saving = append(s.saving[:0], s.unsaved...)
	s.asking, s.commits = s.commits, s.asking[:0]
	s.mu.Unlock()
	slices.SortFunc(s.saving, func(a, b snapshot.Record) int { return cmp.Compare(a.New, b.New) })
	saved, err := s.saveAll()
	s.behind.Store(s.Eager && err != nil) // before the answers, after which chunks are published
	s.forget(saved)
	invalid := s.state.Load() == mapping.Invalid
	// Before the answers, after which a flush can follow.
	s.reportLost(slices.ContainsFunc(s.asking, func(c committer) bool { return c.isFlush }))
	s.saves.Add(-1)
	for _, c := range s.asking {
		if c.done == nil && invalid && err == nil {
			c.part.Done(-int32(unix.EIO)) // the data of a request is lost
			continue
		}
		c.answer(err)
	}
}

// forget removes the first records of s.saving from the unsaved ones, of which s.saving was the
// beginning in another order. Also if the rest could not be saved, the list has these already.
func (s *Store) forget(saved int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	newer := s.unsaved[len(s.saving):]
	n := copy(s.unsaved, s.saving[saved:])
	s.unsaved = s.unsaved[:n+copy(s.unsaved[n:], newer)]
	s.countUnsaved()
	s.area = s.log.Area()
}

// countUnsaved sets the number of unsaved records. A list in doubt counts as one, so that each flush
// saves it. The caller holds both locks.
func (s *Store) countUnsaved() {
	n := int64(len(s.unsaved))
	if s.log.InDoubt() {
		n++
	}
	s.unsavedCount.Store(n)
}

func (c *committer) answer(err error) {
	switch {
	case c.done != nil:
		c.done <- err
	case err != nil:
		c.part.Done(ublk.Result(err))
	default:
		c.part.Done(0)
	}
}

// saveAll saves the records of s.saving, and returns how many of them are done with. An invalid
// store keeps no more records, as in the kernel.
func (s *Store) saveAll() (saved int, err error) {
	if s.state.Load() != mapping.Invalid {
		return s.save(s.saving)
	}
	if err = s.writeInvalid(); err != nil {
		return 0, err
	}
	return len(s.saving), nil
}

// save makes the store durable, with more records, and returns how many of them it has saved.
// After an error, another call can save the rest.
func (s *Store) save(records []snapshot.Record) (saved int, err error) {
	for {
		batch := s.log.Append(records[saved:])
		if err := s.saveBatch(&batch, len(records)); err != nil {
			s.log.Revert()
			return saved, fmt.Errorf("save records: %w", err)
		}
		s.log.Commit()
		if saved += batch.Count; saved == len(records) {
			return saved, nil
		}
	}
}

// saveBatch writes in the order that snapshot.Batch demands. If a flush fails, it is unknown
// which data is on the medium, so the store becomes invalid. The batch has some of the first unsaved
// records.
func (s *Store) saveBatch(b *snapshot.Batch, unsaved int) error {
	if b.Zero.Length != 0 {
		if _, err := s.file.WriteAt(s.zeroes[:b.Zero.Length], b.Zero.Offset); err != nil {
			return err
		}
	}
	if err := s.flush(); err != nil {
		s.lost = true
		s.invalidate()
		return err
	}
	return s.writeRecords(b.Records, unsaved)
}

// writeRecords writes a part of an area. Its flush can fail because of other data. The data of the
// first unsaved records was flushed before.
func (s *Store) writeRecords(w snapshot.Write, flushed int) error {
	ofFlush, err := s.write(w)
	if err != nil && (ofFlush || !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EDQUOT)) {
		s.flushFailed(flushed)
		s.lost = true
	}
	return err
}
