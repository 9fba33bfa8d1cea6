package cow

import (
	"errors"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/eintr"
	"github.com/ublk-loop/ublk-loop/transfer/snapshot"
	"github.com/ublk-loop/ublk-loop/transfer/table"
)

// FlushFailed says that a flush of the store has failed, or a write with a flush. A later flush can
// succeed without the data that this one has lost. So the store becomes invalid if a first write has
// data that no commit has flushed: its record would lead to a chunk without its data. If there
// is none, only the caller's data is lost, and the caller knows that.
func (s *Store) FlushFailed() { s.flushFailed(0) }

func (s *Store) flushFailed(flushed int) {
	if s.format == table.Transient {
		return
	}
	s.mu.Lock()
	lost := s.pending > 0 || len(s.unsaved) > flushed
	s.mu.Unlock()
	if lost {
		s.invalidate()
	}
}

// write writes a part of the store to the medium. In the page cache, a write that flushes can fail because
// of other data: the disk below the file system has no room for it, and it is lost. A write that finds the file
// system full has not lost any. Therefore the flush is a call of its own, and ofFlush says that it has failed.
func (s *Store) write(w snapshot.Write) (ofFlush bool, err error) {
	if len(w.Data) == 0 {
		return false, nil
	}
	flags := 0
	if s.direct {
		flags = unix.RWF_DSYNC
	}
	for len(w.Data) > 0 {
		n, err := unix.Pwritev2(int(s.file.Fd()), [][]byte{w.Data}, w.Offset, flags)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return false, err
		case n == 0:
			return false, unix.EIO
		default:
			w.Data, w.Offset = w.Data[n:], w.Offset+int64(n)
		}
	}
	if s.direct {
		return false, nil
	}
	return true, s.flush()
}

// flush writes all data of the store to the medium.
func (s *Store) flush() error {
	return eintr.Repeat(func() error { return unix.Fdatasync(int(s.file.Fd())) })
}

// reportLost reports that data may be lost. returned is as in Options.Lost.
func (s *Store) reportLost(returned bool) {
	if s.lost && s.onLost != nil {
		s.onLost(returned)
	}
	s.lost = false
}

// IsSaving reports whether records are being saved or removed, or are about to be. The kernel reports lost data to only one of
// several flushes of an open file. So a flush of the device that has found no error waits for a Commit, and then looks
// for what Options.Lost was told.
func (s *Store) IsSaving() bool { return s.saves.Load() > 0 }
