package serving

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/loop/internal/stack"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// Op is what a Request asks for.
type Op string

// These are requests. All but Stats are about a device of tables. Grow and Apply add a store above the
// others.
const (
	Stats  Op = "stats"
	Hold   Op = "hold"   // keep new requests, and save the stores; FDs has ublk.Device.OpenInFlight
	Resume Op = "resume" // end a Hold
	Save   Op = "save"   // save the stores
	Grow   Op = "grow"   // open the store of Growth, and register it with the rings; FDs are its descriptors
	Apply  Op = "apply"  // serve the new store, during a Hold
	Undo   Op = "undo"   // undo Grow
	Merge  Op = "merge"  // merge the store into its base; FDs are the base, and as for Hold
)

// Request is a request to the process.
type Request struct {
	Op       Op
	Growth   *stack.GrowthWork `json:",omitempty"`
	Patience time.Duration     `json:",omitempty"` // of Hold, and of each hold of Merge
	FDs      []int             `json:"-"`
}

// MaxRequestFDs is the largest number of Request.FDs.
const MaxRequestFDs = 2

// Answer is the result of a request.
type Answer struct {
	Stats       *ublk.Stats        `json:",omitempty"`
	Usages      []stack.StoreUsage `json:",omitempty"`
	Corruptions uint64             `json:",omitempty"`
	Chunks      uint64             `json:",omitempty"` // that Merge has copied
}

// stores is the state of requests. The other process sends a request when the one before it has an
// answer, apart from Stats.
type stores struct {
	stack *stack.Stack // nil for a device of one file

	mu     sync.Mutex // held during a request other than Stats
	resume func()     // ends the Hold; nil without one
	growth *stack.Growth
}

// Answer carries out a request. It takes over the descriptors. The context ends a Merge.
func (s *Served) Answer(ctx context.Context, r *Request) (Answer, error) {
	if r.Op == Stats {
		return s.stats(), nil
	}
	files := r.files()
	if s.stack == nil {
		return Answer{}, errors.Join(fmt.Errorf("%s of a device of one file: %w", r.Op, errors.ErrUnsupported), closeAll(files))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var a Answer
	var err error
	switch r.Op {
	case Hold:
		err = s.hold(r.Patience, files)
	case Resume:
		s.endHold()
	case Save:
		err = s.stack.Save()
	case Grow:
		return a, s.grow(r) // which takes over the descriptors
	case Apply:
		err = s.apply()
	case Undo:
		err = s.undo()
	case Merge:
		a.Chunks, err = s.merge(ctx, r.Patience, files)
	default:
		err = fmt.Errorf("request %q: %w", r.Op, unix.EBADMSG)
	}
	return a, errors.Join(err, closeAll(files))
}

// stats carries out Stats.
func (s *Served) stats() Answer {
	stats := s.queues.Stats()
	a := Answer{Stats: &stats}
	if s.stack != nil {
		a.Usages, a.Corruptions = s.stack.Usages(), s.stack.Corruptions()
	}
	return a
}

// files returns the descriptors as files, apart from those of Grow.
func (r *Request) files() (files []*os.File) {
	if r.Op == Grow {
		return nil
	}
	for _, fd := range r.FDs {
		files = append(files, os.NewFile(uintptr(fd), "file"))
	}
	return files
}

func closeAll(files []*os.File) error {
	var errs []error
	for _, f := range files {
		if err := f.Close(); !errors.Is(err, os.ErrClosed) { // which the request has closed
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// hold carries out Hold.
func (s *Served) hold(patience time.Duration, files []*os.File) error {
	if len(files) != 1 || s.resume != nil {
		return unix.EBADMSG
	}
	resume, err := s.queues.Hold(patience, files[0])
	if err != nil {
		return err
	}
	if err := s.stack.Save(); err != nil {
		resume()
		return err
	}
	s.resume = resume
	return nil
}

// endHold carries out Resume.
func (s *stores) endHold() {
	if s.resume != nil {
		s.resume()
		s.resume = nil
	}
}

// grow carries out Grow.
func (s *Served) grow(r *Request) error {
	if r.Growth == nil || s.growth != nil {
		return unix.EBADMSG
	}
	g, err := s.stack.GrowFor(r.Growth, r.FDs)
	if err != nil {
		return err
	}
	s.growth = g
	if err = s.queues.OnThreads(g.Register); err == nil {
		err = s.stack.Save() // so that little is left to save in the Hold
	}
	if err != nil {
		return errors.Join(err, s.undo())
	}
	return nil
}

// apply carries out Apply.
func (s *stores) apply() error {
	if s.growth == nil || s.resume == nil {
		return unix.EBADMSG
	}
	s.growth.Apply()
	s.growth = nil
	return nil
}

// undo carries out Undo.
func (s *Served) undo() error {
	g := s.growth
	if g == nil {
		return nil
	}
	s.growth = nil
	return errors.Join(s.queues.OnThreads(g.Unregister), g.Discard())
}

// merge carries out Merge.
func (s *Served) merge(ctx context.Context, patience time.Duration, files []*os.File) (chunks uint64, err error) {
	if len(files) != 2 {
		return 0, unix.EBADMSG
	}
	base, inFlight := files[0], files[1]
	m, err := s.stack.MergeFor(base)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	err = m.Do(ctx, func() (func(), error) {
		select {
		case <-s.queues.Done():
			return nil, unix.ENODEV
		default:
			return s.queues.Hold(patience, inFlight)
		}
	})
	return m.Chunks, err
}

// end waits for the request that is being carried out, when the queues have ended.
func (s *stores) end() { s.mu.Lock() }
