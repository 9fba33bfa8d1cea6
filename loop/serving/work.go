package serving

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/loop/internal/backing"
	"github.com/ublk-loop/ublk-loop/loop/internal/filelock"
	"github.com/ublk-loop/ublk-loop/loop/internal/stack"
	"github.com/ublk-loop/ublk-loop/loop/internal/target"
	"github.com/ublk-loop/ublk-loop/transfer"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// Work is what the process gets.
type Work struct {
	Queues ublk.QueueTask
	Pool   *Pool       `json:",omitempty"` // threads that the device shares; nil for threads of its own
	File   *File       `json:",omitempty"` // a device of one file or disk
	Tables *stack.Work `json:",omitempty"` // a device of tables

	// FDs are the open character device, and the descriptors of File or Tables.
	FDs []int `json:"-"`
	// Key is the key of the transfer, or the keys of the tables; nil for none.
	Key *transfer.Secret `json:"-"`
	// Found is called with what the process has found. It can be nil.
	Found func(Finding) `json:"-"`
}

// File describes a device of one file or disk. Its descriptors are the open file, and the lock of
// its rings, if there is one.
type File struct {
	Offset   uint64 // start of the device in the file, in bytes
	Sector   uint32 // size of the device's sectors, in bytes
	IsDisk   bool
	ReadOnly bool
	Direct   bool   // I/O bypasses the page cache
	Transfer string // a name of package transfer
	Cipher   transfer.Options
}

// MaxFDs is the largest number of Work.FDs.
const MaxFDs = 1 + stack.MaxWorkFDs // the kernel passes at most 253 with a message (SCM_MAX_FD in net/scm.h)

// Finding is what the process tells about the device while it serves the requests.
type Finding struct {
	Corruption *stack.Corruption   `json:",omitempty"`
	Failure    *stack.StoreFailure `json:",omitempty"`
}

// Served is a device that this process serves.
type Served struct {
	queues *ublk.ServedQueues
	file   *target.Target // of a device of one file
	stores                // of a device of tables
}

// Serve serves the work, on threads of pools if it has a Pool. It takes over the descriptors and the
// key. After an error it has closed them, unless the process has to end. The end of the context, before the threads
// have the queues, is an error.
func (w *Work) Serve(ctx context.Context, pools *Pools) (*Served, error) {
	if len(w.FDs) == 0 || (w.File == nil) == (w.Tables == nil) {
		w.Close()
		return nil, fmt.Errorf("a work without descriptors, files or tables: %w", unix.EBADMSG)
	}
	s := &Served{}
	var target ublk.Target
	var err error
	if w.File != nil {
		s.file, err = w.File.target(w.FDs[1:], w.Key)
		target = s.file
	} else {
		target, s.stack, err = w.Tables.Target(w.FDs[1:], w.Queues.ExtraParts, w.Key)
		if w.Key != nil {
			w.Key.Close() // the stack has copies
		}
	}
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return nil, errors.Join(err, s.close(), unix.Close(w.FDs[0]))
	}
	var threads *ublk.Threads
	if w.Pool != nil {
		threads = pools.Of(*w.Pool)
	}
	if s.queues, err = ublk.ServeQueues(w.FDs[0], w.Queues, target, threads); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// Close closes the descriptors and wipes the key of a work that is not served.
func (w *Work) Close() {
	for _, fd := range w.FDs {
		_ = unix.Close(fd)
	}
	if w.Key != nil {
		w.Key.Close()
	}
}

// target returns the file to serve.
func (w *File) target(fds []int, key *transfer.Secret) (*target.Target, error) {
	if len(fds) < 1 || len(fds) > 2 {
		for _, fd := range fds {
			_ = unix.Close(fd)
		}
		return nil, fmt.Errorf("%d descriptors, want 1 or 2: %w", len(fds), unix.EBADMSG)
	}
	t := &target.Target{Backing: &backing.Backing{
		FD: fds[0], File: os.NewFile(uintptr(fds[0]), "file"), Offset: w.Offset, SectorSize: w.Sector, IsDisk: w.IsDisk, ReadOnly: w.ReadOnly, Direct: w.Direct,
	}}
	if len(fds) > 1 {
		t.Backing.Lock = filelock.OfRings(os.NewFile(uintptr(fds[1]), "lock"))
	}
	var err error
	if w.Transfer != "" {
		t.Transfer, err = transfer.New(w.Transfer, key, w.Cipher)
	}
	return t, err
}

// Wait waits until all queues have ended, saves the stores, and closes everything. It returns nil
// after a Stop.
func (s *Served) Wait() error {
	err := s.queues.Wait()
	if closed := errors.Join(s.end(), s.close()); err == nil {
		err = closed
	}
	return err
}

// close saves the stores, closes the files and wipes the keys.
func (s *Served) close() error {
	switch {
	case s.stack != nil:
		return s.stack.CloseServed()
	case s.file == nil:
		return nil
	}
	var err error
	if s.file.Transfer != nil {
		err = s.file.Transfer.Close()
	}
	return errors.Join(err, s.file.Backing.CloseFiles())
}

// Report calls a function with all that is found, until the queues have ended.
func (s *Served) Report(found func(Finding)) {
	if s.stack == nil {
		return
	}
	for {
		select {
		case c := <-s.stack.CorruptionReports():
			found(Finding{Corruption: &c})
		case f := <-s.stack.Failures():
			found(Finding{Failure: &f})
		case <-s.queues.Done():
			return
		}
	}
}
