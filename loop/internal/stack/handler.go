package stack

import (
	"errors"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/loop/internal/backing"
	"github.com/ublk-loop/ublk-loop/loop/internal/mapping"
	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/uapi"
)

// defaultDepth is at least the depth of a queue whose depth is not configured.
const defaultDepth = 128

// ExtraParts returns the value for ublk.Options.ExtraParts, for queues of a depth; 0 is the
// default depth. A request that finds none of the extra parts free goes on with its own one.
func (s *Stack) ExtraParts(depth int) int {
	if depth == 0 {
		depth = defaultDepth
	}
	const fewest, most = 15, 512 // a request alone can have as many in flight as the fewest
	n := min(max(depth/2, fewest), most)
	if pieces, ok := s.plan.MaxPieces(); ok && !s.isPlain() { // a store can divide requests later
		n = min(n, depth*(max(pieces, len(s.flush), 1)-1))
	}
	return n
}

// Files returns the value for ublk.Options.Files.
func (s *Stack) Files() int {
	n := 2*len(s.Backings) + 1
	if s.CanGrow() {
		n += 2 * maxForks
	}
	return n
}

// Features returns the value for ublk.Options.Features.
func (s *Stack) Features(mode ublk.BufferMode) ublk.Features {
	if mode.ZeroCopy() && (s.HasStore() || s.isPlain()) {
		return uapi.UBLK_F_USER_COPY // for handler.joins
	}
	return 0
}

// Target answers the requests of a stack.
type Target struct {
	Stack      *Stack
	ExtraParts int // the value of ublk.Options.ExtraParts
}

// NewHandler implements ublk.Target.
func (t *Target) NewHandler(q *ublk.Queue) (ublk.Handler, error) {
	h := &handler{
		queue: q, stack: t.Stack, levels: t.Stack.plan.Levels(), copies: !q.Mode().ZeroCopy(),
		requests: make([]request, q.Depth()), parts: make([]part, q.Depth()+t.ExtraParts),
		ranges: t.Stack.plan.RangeWalks(q.Depth()),
	}
	for number := t.ExtraParts; number > 0; number-- {
		h.extra = append(h.extra, number)
	}
	for _, store := range t.Stack.stores {
		store.Reserve(len(h.parts))
	}
	for i, b := range t.Stack.Backings {
		file, err := h.register(b)
		if err != nil {
			return nil, err
		}
		file.syncedLater = t.Stack.storeOf[i] != nil && !b.Direct
		h.files = append(h.files, file)
	}
	if err := h.makeCopier(t.Stack.chunkToCopy()); err != nil {
		return nil, err
	}
	h.makeCovered(q)
	if t.Stack.zeroes != nil {
		var err error
		if h.zeroes.File, err = q.RegisterFile(int(t.Stack.zeroes.Fd())); err != nil {
			return nil, err
		}
	}
	var err error
	h.checker, err = newChecker(h, q.Depth())
	return h, err
}

// register puts a file and its lock in the ring, or neither of them.
func (h *handler) register(b *backing.Backing) (backingFile, error) {
	file, err := h.queue.RegisterFile(b.FD)
	if err != nil {
		return backingFile{}, err
	}
	if b.Direct {
		file.Block = b.SectorSize
	}
	f := backingFile{File: file, backing: b, isDisk: b.IsDisk}
	if b.Lock != nil {
		// A ring outlives its process until its last operation has ended, and the lock with it.
		if f.lock, err = h.queue.RegisterFile(b.Lock.RingFD()); err != nil {
			return backingFile{}, errors.Join(err, h.queue.UnregisterFile(file))
		}
	}
	return f, nil
}

// unregister undoes register.
func (h *handler) unregister(f *backingFile) error {
	err := h.queue.UnregisterFile(f.File)
	if f.lock != (ublk.File{}) {
		err = errors.Join(err, h.queue.UnregisterFile(f.lock))
	}
	return err
}

// backingFile is a file of the stack in the ring.
type backingFile struct {
	ublk.File
	backing *backing.Backing
	isDisk  bool
	// syncedLater says that a write with FUA is a write and a flush, see handler.fuaFailed.
	syncedLater bool
	lock        ublk.File // the zero value if the file has no lock
}

// fileOf returns the file of a device of the tables.
func (h *handler) fileOf(device int) *backingFile { return &h.files[h.stack.backingOf[device]] }

// handler serves one queue.
type handler struct {
	queue    *ublk.Queue
	stack    *Stack
	levels   int                 // of layers that transform data; 0 unless copies is set
	files    []backingFile       // by number of the backing
	growth   *Growth             // the last one
	zeroes   backingFile         // /dev/zero, if a part of the device is zero
	copies   bool                // requests have their data in memory
	checker  *checker            // of reads, if a layer is verity
	requests []request           // by tag
	ranges   []mapping.RangeWalk // by tag: the rest of a discard or write-zeroes
	parts    []part              // by handler.partIndex
	extra    []int               // numbers of free parts that any request can take
	copier                       // of first writes
	covered                      // of what is read from origins of snapshots
}

var _ ublk.PartCompleter = (*handler)(nil)

// request is the state of a tag's request.
type request struct {
	done    uint64 // how much of a read or write has begun
	synced  int    // files whose sync was sent
	awaited int    // files whose stores were asked by awaitSaves
	stage   stage
	flying  int    // parts in flight
	busy    bool   // its own part, which has the number 0, is in flight
	errno   int32  // the first error
	seen    uint64 // for Stack.lost, of a flush or a request with FUA
}

// stage is what the parts in flight do.
type stage uint8

const (
	stageData   stage = iota // read or write
	stageRange               // discard or write zeroes
	stageSync                // fdatasync
	stageCommit              // records of stores
	stageCheck               // read for the checks of a layer
)

// begin makes the state ready for a request.
func (h *handler) begin(req *ublk.Request, s stage) *request {
	r := &h.requests[req.Tag()]
	r.stage, r.synced, r.awaited, r.flying, r.errno, r.busy = s, 0, 0, 0, 0, false
	if req.Op == ublk.OpFlush || req.Flags&ublk.FlagFUA != 0 {
		r.seen = h.stack.lost.Look()
	}
	return r
}

// fail records the result of a part, unless another part has failed before.
func (r *request) fail(errno int32) {
	if r.errno == 0 {
		r.errno = errno
	}
}

// Handle implements ublk.Handler.
func (h *handler) Handle(req *ublk.Request) {
	switch {
	case req.Op == ublk.OpRead:
		h.readOrWrite(req)
	case req.Op == ublk.OpFlush:
		h.sync(req, h.begin(req, stageSync))
	case req.Op != ublk.OpWrite && req.Op != ublk.OpDiscard && req.Op != ublk.OpWriteZeroes:
		req.Complete(unix.EOPNOTSUPP)
	case h.stack.ReadOnly:
		req.Complete(unix.EROFS)
	case req.Op == ublk.OpWrite:
		h.readOrWrite(req)
	default:
		h.changeRange(req)
	}
}

// Done implements ublk.Completer. No operation of this handler is without a part, apart from
// those that complete their request.
func (h *handler) Done(req *ublk.Request, _ int32) { req.Complete(unix.EIO) }

// PartDone implements ublk.PartCompleter.
func (h *handler) PartDone(req *ublk.Request, number int, res int32) {
	r, p := &h.requests[req.Tag()], h.part(req, number)
	var ended bool
	switch r.stage {
	case stageData:
		if p.slot != 0 {
			ended = h.checker.aheadDone(req, number, p, res)
		} else {
			ended = h.dataOrFirstWriteDone(req, r, p, number, res)
		}
	case stageCheck:
		ended = h.dataDone(req, r, p, number, res)
	case stageRange:
		ended = h.rangeDone(req, r, p, number, res)
	default:
		ended = h.syncDone(req, r, p, number, res)
	}
	if ended {
		h.partEnded(req, r, number)
	}
}

// partEnded goes on with a request after the end of a part.
func (h *handler) partEnded(req *ublk.Request, r *request, number int) {
	h.release(r, number)
	switch r.stage {
	case stageData:
		h.sendData(req, r)
	case stageRange:
		h.sendRanges(req, r)
	case stageCheck:
		k := h.checker.checkOf(req, number)
		k.fail(r.errno)
		h.checker.readEnded(k)
	default:
		h.sync(req, r)
	}
}
