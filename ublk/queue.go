package ublk

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ring"
	"github.com/ublk-loop/ublk-loop/ublk/uapi"
)

// Queue is one queue of a device. A thread serves its tags.
type Queue struct {
	dev    *Device
	id     uint16
	depth  int
	mode   BufferMode
	thread *thread
	slot   uint16       // the queue's slot of its thread
	ended  chan<- error // receives the queue's error, nil after an orderly end

	bufs         *buffers
	mapped       []byte // the mapping of descs
	descs        []uapi.IODesc
	reqs         []Request
	handler      Handler
	done         Completer     // handler, or noCompleter
	hasDone      bool          // handler is a Completer
	parts        PartCompleter // handler, or noCompleter
	watcher      Watcher       // handler, if it is a Watcher
	files        int           // slots of the queue in the file table that were used
	freeFiles    []uint32      // those of them that are free again
	async        *asyncQueue   // nil until the handler calls Request.Async
	asyncResults []asyncResult // of this turn
	armed        int           // tags that the driver has not ended
	refused      bool          // the driver has refused a fetch
	holds        int           // calls of hold without resume: the queue keeps new requests
	kept         []uint16      // tags of the kept requests
	// inService is the number of requests without a result.
	inService int
	counters  *counters
	published int            // inService in the counters
	tallies   [opCount]tally // sums of all turns
	tallied   uint8          // a bit for each operation whose tally has changed in this turn
	linkable  uint           // requests that the kernel could complete by itself
}

// ID returns the queue's number.
func (q *Queue) ID() int { return int(q.id) }

// Depth returns the number of tags, which is the largest number of requests at a time.
func (q *Queue) Depth() int { return q.depth }

// MaxIOBytes returns the size of the largest request.
func (q *Queue) MaxIOBytes() int { return int(q.dev.info.MaxIOBytes) }

// Mode returns where the bytes of the queue's requests live.
func (q *Queue) Mode() BufferMode { return q.mode }

// Ring returns the ring of the queue's thread. The ring's file and buffer tables belong to
// the thread's queues.
func (q *Queue) Ring() *ring.Ring { return q.thread.ring }

// BufferSlot returns the slot of a tag in the ring's buffer table.
func (q *Queue) BufferSlot(tag int) uint32 { return uint32(q.bufs.first) + uint32(tag) }

// firstFile is the first of the queue's slots in the file table.
func (q *Queue) firstFile() int { return int(q.slot) * q.thread.kind.files }

// setUp makes everything that the queue needs. The thread serves its other queues meanwhile.
// After an error, call leave.
func (q *Queue) setUp(target Target) error {
	t := q.thread
	if err := t.do(func() error { t.queues[q.slot] = q; return nil }); err != nil {
		return err
	}
	var err error
	if q.bufs, err = newBuffers(q.mode, int(q.slot), q.depth, int(q.dev.info.MaxIOBytes), t.kind.cpus); err != nil {
		return err
	}
	if err := q.bufs.register(t.ring, t.do); err != nil {
		return err
	}
	return t.do(func() error {
		if err := q.mapDescriptors(); err != nil {
			return err
		}
		q.newRequests()
		return q.setUpHandler(target)
	})
}

func (q *Queue) newRequests() {
	q.reqs = make([]Request, q.depth)
	for tag := range q.reqs {
		q.reqs[tag].q, q.reqs[tag].tag = q, uint16(tag)
	}
}

// setUpHandler makes the queue's handler.
func (q *Queue) setUpHandler(target Target) error {
	var err error
	if q.handler, err = target.NewHandler(q); err != nil {
		return err
	}
	q.watcher, _ = q.handler.(Watcher)
	var hasParts bool
	if q.parts, hasParts = q.handler.(PartCompleter); !hasParts {
		q.parts = noCompleter{}
	}
	if q.done, q.hasDone = q.handler.(Completer); !q.hasDone {
		q.done = noCompleter{}
		if q.mode.ZeroCopy() {
			return fmt.Errorf("buffer mode %v: %w", q.mode, ErrNeedsCopy)
		}
	}
	return nil
}

func (q *Queue) mapDescriptors() error {
	offset := int64(q.id) * int64(descriptorBytes(uapi.UBLK_MAX_QUEUE_DEPTH))
	mem, err := unix.Mmap(q.dev.charFD, uapi.UBLKSRV_CMD_BUF_OFFSET+offset, descriptorBytes(q.depth),
		unix.PROT_READ, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return fmt.Errorf("map descriptors: %w", err)
	}
	q.mapped = mem
	q.descs = descriptors(mem, q.depth)
	return nil
}

// fetchAll sends the fetch command of every tag. The driver either refuses a command at once
// or keeps it. So after one submit it is known that all tags are fetched.
func (q *Queue) fetchAll() error {
	for tag := range q.reqs {
		q.ioCommand(uapi.UBLK_U_IO_FETCH_REQ, &q.reqs[tag], 0)
	}
	q.armed = q.depth
	r := q.thread.ring
	if err := r.Submit(); err != nil {
		return err
	}
	for i := range r.CQReady() {
		cqe := r.CQE(i)
		if cqe.UserData == q.userData(kindFetch, uint16(cqe.UserData)) && cqe.Res < 0 {
			q.refused = true
			return fmt.Errorf("fetch requests: %w", unix.Errno(-cqe.Res))
		}
	}
	return nil
}

// userData returns the user_data of an entry for a tag.
func (q *Queue) userData(kind uint64, tag uint16) uint64 {
	return kind<<32 | uint64(q.slot)<<16 | uint64(tag)
}

// complete handles one completion.
func (q *Queue) complete(kind uint64, req *Request, res int32) error {
	switch kind {
	case kindTarget:
		q.done.Done(req, res)
	case kindForward:
		if req.state == stateLinked {
			// The link is broken, so the kernel does not complete the request.
			req.state = stateBroken
			q.inService++
		}
		if q.watcher != nil {
			q.watcher.Forwarded(req, res, func(res int32) { q.forwarded(req, res) })
			break
		}
		q.forwarded(req, res)
	case kindFetch:
		return q.fetched(req, res)
	case kindRegister:
		if res < 0 {
			q.commitUnregistered(req, res)
		} else {
			q.begin(req)
		}
	case kindUnregister:
		return fmt.Errorf("unregister buffer of tag %d: %w", req.tag, unix.Errno(-res))
	default:
		q.parts.PartDone(req, int(kind>>partShift)-1, res)
	}
	return nil
}

// fetched handles the end of a fetch: the driver delivers a request, or ends the tag.
func (q *Queue) fetched(req *Request, res int32) error {
	switch {
	case res == uapi.UBLK_IO_RES_OK:
	case res == uapi.UBLK_IO_RES_ABORT || q.refused:
		q.disarm()
		return nil
	default:
		return fmt.Errorf("fetch request of tag %d: %w", req.tag, unix.Errno(-res))
	}
	if q.holds > 0 {
		q.keep(req)
		return nil
	}
	q.accept(req)
	return nil
}

// accept begins a request whose fetch has ended.
func (q *Queue) accept(req *Request) {
	req.decode(&q.descs[req.tag])
	req.bufIndex = q.bufs.first + req.tag
	req.byCommand = false
	req.state, req.begun = stateHandler, 0
	q.inService++
	if q.needsRegister(req) {
		req.begun = q.thread.now()
		q.register(req)
	} else {
		q.begin(req)
	}
}

// needsRegister reports whether a command must register the request's pages.
func (q *Queue) needsRegister(req *Request) bool {
	switch q.mode {
	case BufferAutoRegister:
		return req.Flags&flagNeedRegister != 0
	case BufferRegister:
		return req.Op.HasData()
	}
	return false
}

// register puts the request's pages in the tag's second slot. The driver uses the first.
func (q *Queue) register(req *Request) {
	if q.mode == BufferAutoRegister {
		q.counters.fallbacks.Add(1)
	}
	req.bufIndex = q.bufs.first + uint16(q.depth) + req.tag
	req.byCommand = true
	sqe := q.bufferCommand(uapi.UBLK_U_IO_REGISTER_IO_BUF, req)
	sqe.UserData = q.userData(kindRegister, req.tag)
}

// commit returns a request's result and fetches its tag again.
func (q *Queue) commit(req *Request, result int32) {
	counted := req.state == stateBroken
	if !req.leaveHandler(stateDriver) {
		return
	}
	if !counted {
		q.count(req)
	}
	q.countEnd(req, result)
	if req.byCommand {
		q.thread.room(2)
		sqe := q.bufferCommand(uapi.UBLK_U_IO_UNREGISTER_IO_BUF, req)
		sqe.UserData = q.userData(kindUnregister, req.tag)
		// The commit follows the command, whatever its result: without a commit the tag
		// would be lost.
		sqe.Flags |= ring.IOSQE_IO_HARDLINK | ring.IOSQE_CQE_SKIP_SUCCESS
	}
	q.inService--
	q.ioCommand(uapi.UBLK_U_IO_COMMIT_AND_FETCH_REQ, req, result)
}

// commitUnregistered is commit for a request whose pages could not be registered.
func (q *Queue) commitUnregistered(req *Request, result int32) {
	req.byCommand = false
	q.commit(req, result)
}
