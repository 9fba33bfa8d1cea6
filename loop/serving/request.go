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

// These are requests. All but Stats, Hold and Resume are about a device of tables. Grow and Apply add a store
// above the others, Reload and Apply other files below the uppermost one.
const (
	Stats  Op = "stats"
	Hold   Op = "hold"   // keep new requests, and save the stores; FDs has the files of ublk.Device.OpenInFlight
	Resume Op = "resume" // end a Hold
	Save   Op = "save"   // save the stores
	Grow   Op = "grow"   // open the store of Growth, and register it with the rings; FDs are its descriptors
	Reload Op = "reload" // open the new files of Tables, and register them with the rings; FDs are their descriptors
	Apply  Op = "apply"  // serve the new tables, during a Hold
	Undo   Op = "undo"   // undo Grow or Reload; after the Apply of a Reload, close the replaced files
	Merge  Op = "merge"  // merge the store into its base; FDs are the base, and as for Hold
)

// HasTurn reports whether requests with this operation are carried out in the order in which they come.
func (o Op) HasTurn() bool { return o != Stats && o != Merge }

// Request is a request to the process.
type Request struct {
	Op       Op
	Growth   *stack.GrowthWork `json:",omitempty"`
	Tables   *stack.ReloadWork `json:",omitempty"`
	Number   uint64            `json:",omitempty"` // of a Hold; Resume ends only the Hold with its number
	Patience time.Duration     `json:",omitempty"` // of Hold, and of each hold of Merge
	FDs      []int             `json:"-"`
}

// AnswerPatience is how long the server waits for the process, which may hang or be hostile. It bounds the wait for
// an answer, unless the request itself bounds what it does, and the wait for the end of a device without a disk. The
// start of a device and a merge can take longer. After AnswerPatience without any answer the start fails, and so does a
// merge when its device has ended.
const AnswerPatience = time.Minute

// ErrSilent is the error after AnswerPatience. It wraps ETIMEDOUT.
var ErrSilent = fmt.Errorf("the process that serves the requests does not answer: %w", unix.ETIMEDOUT)

// MaxRequestFDs is the largest number of Request.FDs.
const MaxRequestFDs = stack.MaxWorkFDs

// Answer is the result of a request.
type Answer struct {
	Stats       *ublk.Stats        `json:",omitempty"`
	Usages      []stack.StoreUsage `json:",omitempty"`
	Corruptions uint64             `json:",omitempty"`
	Chunks      uint64             `json:",omitempty"` // that Merge has copied
}

// stores is the state of requests. The other process sends a request when the one before it has an
// answer, apart from Stats. During a Merge, it sends Hold, Resume and Save.
type stores struct {
	stack *stack.Stack // nil for a device of one file

	merging sync.Mutex // held during a Merge
	holding sync.Mutex // held while a Hold or a Merge keeps requests; taken after the others

	mu     sync.Mutex // held during a request other than Stats and Merge
	resume func()     // ends the Hold; nil without one
	held   uint64     // number of the Hold
	growth *stack.Growth
	reload *stack.Reload
	ended  bool // the queues have ended
}

// Answer carries out a request. It takes over the descriptors. The context ends a Merge.
func (s *Served) Answer(ctx context.Context, r *Request) (Answer, error) {
	if r.Op == Stats {
		return s.stats(), nil
	}
	files := r.files()
	if r.Op == Merge && s.stack != nil {
		chunks, err := s.merge(ctx, r.Patience, files)
		return Answer{Chunks: chunks}, errors.Join(err, closeAll(files))
	}
	if s.stack == nil && r.Op != Hold && r.Op != Resume {
		return Answer{}, r.refuse(files, fmt.Errorf("%s of a device of one file: %w", r.Op, errors.ErrUnsupported))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return Answer{}, r.refuse(files, unix.ENODEV)
	}
	var a Answer
	var err error
	switch r.Op {
	case Hold:
		err = s.hold(r, files)
	case Resume:
		s.endHold(r.Number)
	case Save:
		err = s.stack.Save()
	case Grow:
		return a, s.grow(r) // which takes over the descriptors
	case Reload:
		return a, s.change(r) // likewise
	case Apply:
		err = s.apply()
	case Undo:
		err = s.undo()
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

// files returns the descriptors as files, apart from those of Grow and Reload.
func (r *Request) files() (files []*os.File) {
	if r.Op == Grow || r.Op == Reload {
		return nil
	}
	for _, fd := range r.FDs {
		files = append(files, os.NewFile(uintptr(fd), "file"))
	}
	return files
}

// refuse returns an error, and closes the descriptors, which Request.files may have returned.
func (r *Request) refuse(files []*os.File, err error) error {
	if files != nil {
		return errors.Join(err, closeAll(files))
	}
	for _, fd := range r.FDs {
		_ = unix.Close(fd)
	}
	return err
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
func (s *Served) hold(r *Request, files []*os.File) error {
	if s.resume != nil {
		return unix.EBADMSG
	}
	inFlight, err := ublk.NewInFlight(files)
	if err != nil {
		return err
	}
	resume, err := s.holdAlone(r.Patience, inFlight)
	if err != nil {
		return err
	}
	if s.stack != nil {
		err = s.stack.Save()
	}
	if err != nil {
		resume()
		return err
	}
	s.resume, s.held = resume, r.Number
	return nil
}

// holdAlone keeps new requests while nothing else does.
func (s *Served) holdAlone(patience time.Duration, inFlight *ublk.InFlight) (resume func(), err error) {
	s.holding.Lock()
	r, err := s.queues.Hold(patience, inFlight)
	if err != nil {
		s.holding.Unlock()
		return nil, err
	}
	return func() { r(); s.holding.Unlock() }, nil
}

// endHold carries out Resume.
func (s *stores) endHold(number uint64) {
	if s.resume != nil && s.held == number {
		s.resume()
		s.resume = nil
	}
}

// merge carries out Merge.
func (s *Served) merge(ctx context.Context, patience time.Duration, files []*os.File) (chunks uint64, err error) {
	if len(files) == 0 {
		return 0, unix.EBADMSG
	}
	inFlight, err := ublk.NewInFlight(files[1:])
	if err != nil {
		return 0, err
	}
	s.merging.Lock()
	defer s.merging.Unlock()
	if s.isOver() {
		return 0, unix.ENODEV
	}
	m, err := s.stack.MergeFor(files[0])
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	err = m.Do(ctx, func() (func(), error) {
		if s.isOver() {
			return nil, unix.ENODEV
		}
		return s.holdAlone(patience, inFlight)
	})
	return m.Chunks, err
}

// isOver reports whether the queues have ended.
func (s *Served) isOver() bool {
	select {
	case <-s.queues.Done():
		return true
	default:
		return false
	}
}

// end waits for the requests that are being carried out, when the queues have ended. No other follows.
func (s *stores) end() error {
	s.merging.Lock()
	defer s.merging.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	var err error
	if s.growth != nil {
		err = s.growth.Discard()
	}
	if s.reload != nil {
		err = errors.Join(err, s.reload.Discard())
	}
	return err
}
