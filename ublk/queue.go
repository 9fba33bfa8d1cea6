package ublk

import (
	"errors"
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ring"
)

// Queue is one queue of a device: a thread, a ring, and depth tags.
type Queue struct {
	dev     *Device
	id      uint16
	depth   int
	ring    *ring.Ring
	bufs    *buffers
	mapped  []byte // the descriptors' memory
	descs   []ublksrvIODesc
	reqs    []Request
	handler Handler
	done    Completer // handler, where it is one
	files   int       // slots of the file table that are taken
	armed   int       // tags whose end the driver has not announced
	// inService is the number of requests without a result.
	inService int
	mode      BufferMode
	killed    bool
	broken    error    // why the ring takes no more entries
	spare     ring.SQE // the entry handed out then
}

// ID returns the queue's number.
func (q *Queue) ID() int { return int(q.id) }

// Depth returns how many requests the queue has at most at a time.
func (q *Queue) Depth() int { return q.depth }

// Mode returns where the bytes of the queue's requests live.
func (q *Queue) Mode() BufferMode { return q.mode }

// Ring returns the queue's ring. Its file and buffer tables are the queue's.
func (q *Queue) Ring() *ring.Ring { return q.ring }

// maxFiles is the size of a queue's file table. The character device is not in
// it: a reference there outlives the ring's close, and the device's deletion
// waits for it.
const maxFiles = 8

// RegisterFile puts a descriptor in the ring's file table, one of eight at
// most, and returns its index for entries with IOSQE_FIXED_FILE. It is there
// until the queue ends.
func (q *Queue) RegisterFile(fd int) (int32, error) {
	if q.files == maxFiles {
		return -1, fmt.Errorf("register a file of queue %d: %w", q.id, unix.ENFILE)
	}
	index := int32(q.files)
	q.files++
	return index, q.ring.UpdateFile(uint32(index), int32(fd))
}

// newFileTable registers an empty table.
func (q *Queue) newFileTable() error {
	var table [maxFiles]int32
	for i := range table {
		table[i] = -1
	}
	return q.ring.RegisterFiles(table[:])
}

// run is a queue's thread, from its set-up to the end of its last tag. It
// reports on the line whether it is set up, and whether all tags are fetched,
// and its end by returning. Device.Start starts it, Device.wait waits for it.
func (q *Queue) run(target Target, line *startLine) error {
	// The driver binds each tag to the task that fetched it, and the kernel
	// ends a task's commands with the task. Never unlocked: Go then ends the
	// thread with the goroutine, and with it its affinity and its ring.
	runtime.LockOSThread()
	defer q.close()
	err := q.setUp(target)
	line.ready <- err
	if err != nil {
		return nil // Start reports it
	}
	if <-line.fetch; line.off {
		return nil
	}
	err = q.fetchAll()
	line.ready <- err
	if err != nil {
		return nil
	}
	return q.serve()
}

// setUp makes all that the queue needs.
func (q *Queue) setUp(target Target) error {
	if err := q.pin(); err != nil {
		return err
	}
	if err := q.newRing(); err != nil {
		return err
	}
	var err error
	if q.bufs, err = newBuffers(q.ring, q.mode, q.depth, int(q.dev.info.MaxIOBytes)); err != nil {
		return err
	}
	if err := q.newFileTable(); err != nil {
		return err
	}
	if err := q.mapDescriptors(); err != nil {
		return err
	}
	if q.handler, err = target.NewHandler(q); err != nil {
		return err
	}
	q.done, _ = q.handler.(Completer)
	if q.dev.untrusted {
		if err := loseTrust(); err != nil {
			return err
		}
	}
	return nil
}

// pin binds the thread to the CPUs whose requests come to this queue.
func (q *Queue) pin() error {
	set, err := q.dev.ctl.queueAffinity(q.dev.info.ID, q.id)
	if err != nil {
		return err
	}
	err = unix.SchedSetaffinity(0, &set)
	if errors.Is(err, unix.EINVAL) {
		return nil // none of them is allowed here (cpuset) or online
	}
	return wrap("set affinity", err)
}

// newRing makes the queue's ring. A tag has at most two entries in flight,
// those of a turn are submitted together, and the kill switch has one. The
// kernel has the memory for all of them before the device starts: a pair that
// is linked must not be taken in two, the second then waits for nothing.
func (q *Queue) newRing() error {
	entries := uint32(2*q.depth + 2)
	r, err := ring.New(ring.Options{
		Entries:      entries,
		CQEntries:    uint32(4*q.depth + 4),
		SingleIssuer: true,
	})
	if err != nil {
		return err
	}
	q.ring = r
	// An older kernel finds the ring by its descriptor, a little slower.
	if err := r.RegisterRingFD(); err != nil && !errors.Is(err, unix.EINVAL) {
		return err
	}
	return r.Reserve(entries)
}

func (q *Queue) mapDescriptors() error {
	offset := int64(q.id) * int64(descriptorBytes(UBLK_MAX_QUEUE_DEPTH))
	mem, err := unix.Mmap(q.dev.charFD, UBLKSRV_CMD_BUF_OFFSET+offset, descriptorBytes(q.depth),
		unix.PROT_READ, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return fmt.Errorf("map descriptors: %w", err)
	}
	q.mapped = mem
	q.descs = descriptors(mem, q.depth)
	return nil
}

// fetchAll sends the fetch command of every tag. The driver refuses a command
// at once or keeps it, so after one enter all are known to be fetched.
func (q *Queue) fetchAll() error {
	q.armKillSwitch()
	q.reqs = make([]Request, q.depth)
	for tag := range q.reqs {
		req := &q.reqs[tag]
		req.q, req.tag = q, uint16(tag)
		q.ioCommand(UBLK_U_IO_FETCH_REQ, req, 0)
	}
	q.armed = q.depth
	if err := q.ring.Submit(); err != nil {
		return err
	}
	if q.ring.CQReady() > 0 {
		return fmt.Errorf("fetch requests: %w", unix.Errno(-q.ring.CQE(0).Res))
	}
	return nil
}

// yieldEvery is how often a busy queue yields to Go's scheduler. A goroutine
// that has not for 10 ms is one that the runtime's monitor preempts from then
// on at each system call, 50,000 times a second; at queue depth 1 that costs an
// eighth of the speed. A yield wakes another thread, so it is not for every
// turn, and neither is a look at the clock.
const (
	yieldEvery = 5 * time.Millisecond
	clockAfter = 64 // completions
)

// serve answers requests until the driver has ended every tag, or until the
// kill switch.
func (q *Queue) serve() error {
	handled, yielded := uint32(0), time.Now()
	for q.armed > 0 && !q.killed {
		if err := q.ring.SubmitAndWait(1); err != nil {
			return err
		}
		n := q.ring.CQReady()
		for i := range n {
			cqe := q.ring.CQE(i)
			if err := q.complete(cqe.UserData, cqe.Res); err != nil {
				return err
			}
		}
		q.ring.CQAdvance(n)
		if handled += n; handled >= clockAfter {
			handled = 0
			if now := time.Now(); now.Sub(yielded) >= yieldEvery {
				yielded = now
				runtime.Gosched()
			}
		}
		if q.broken != nil {
			return fmt.Errorf("submit: %w", q.broken)
		}
	}
	if q.killed {
		return ErrKilled
	}
	return nil
}

// What an entry was for: the high half of its user_data, above the tag.
const (
	kindFetch = iota
	kindTarget
	kindRegister
	kindUnregister
	kindKill
)

func userData(kind uint64, tag uint16) uint64 { return kind<<32 | uint64(tag) }

// complete handles one completion.
func (q *Queue) complete(data uint64, res int32) error {
	req := &q.reqs[uint16(data)]
	switch data >> 32 {
	case kindTarget:
		if req.linked {
			// The link is broken, the request not complete after all.
			req.linked = false
			q.inService++
		}
		q.done.Done(req, res)
	case kindFetch:
		return q.fetched(req, res)
	case kindRegister:
		if res < 0 {
			q.commitUnregistered(req, res)
		} else {
			q.handler.Handle(req)
		}
	case kindUnregister:
		return fmt.Errorf("unregister buffer of tag %d: %w", req.tag, unix.Errno(-res))
	case kindKill:
		q.killed = true
	}
	return nil
}

// fetched handles the end of a fetch: a request, or the end of the tag.
func (q *Queue) fetched(req *Request, res int32) error {
	switch {
	case res == UBLK_IO_RES_OK:
	case res == UBLK_IO_RES_ABORT:
		q.armed--
		return nil
	default:
		return fmt.Errorf("fetch request of tag %d: %w", req.tag, unix.Errno(-res))
	}
	req.decode(&q.descs[req.tag])
	req.bufIndex = req.tag
	req.linked = false
	q.inService++
	if q.needsRegister(req) {
		q.register(req)
	} else {
		q.handler.Handle(req)
	}
	return nil
}

// needsRegister reports whether the request's pages are still to be put in the
// ring's table by a command.
func (q *Queue) needsRegister(req *Request) bool {
	switch q.mode {
	case BufferAutoRegister:
		return req.Flags&flagNeedRegister != 0
	case BufferRegister:
		return req.Op.HasData()
	}
	return false
}

// register puts the request's pages in the slot that is kept for it beside the
// one that the driver uses.
func (q *Queue) register(req *Request) {
	req.bufIndex = uint16(q.depth) + req.tag
	sqe := q.bufferCommand(UBLK_U_IO_REGISTER_IO_BUF, req)
	sqe.UserData = userData(kindRegister, req.tag)
}

// commit returns a request's result and fetches its tag again.
func (q *Queue) commit(req *Request, result int32) {
	if req.bufIndex != req.tag {
		sqe := q.bufferCommand(UBLK_U_IO_UNREGISTER_IO_BUF, req)
		sqe.UserData = userData(kindUnregister, req.tag)
		// In order, and whatever its result: without a commit the tag is lost.
		sqe.Flags = ring.IOSQE_IO_HARDLINK | ring.IOSQE_CQE_SKIP_SUCCESS
	}
	q.inService--
	q.ioCommand(UBLK_U_IO_COMMIT_AND_FETCH_REQ, req, result)
}

// commitUnregistered is commit for a request whose pages never were in the
// table.
func (q *Queue) commitUnregistered(req *Request, result int32) {
	req.bufIndex = req.tag
	q.commit(req, result)
}

// sqe returns a free entry. When the queue is full it first hands over what is
// there: the kernel takes all of it, so there is room then. Where it does not,
// the ring is broken and serve ends; until then the entry is one that goes
// nowhere.
func (q *Queue) sqe() *ring.SQE {
	if sqe := q.ring.GetSQE(); sqe != nil {
		return sqe
	}
	if err := q.ring.Submit(); err != nil {
		q.broken = err
	} else if sqe := q.ring.GetSQE(); sqe != nil {
		return sqe
	} else {
		q.broken = unix.ENOSPC
	}
	q.spare = ring.SQE{}
	return &q.spare
}

// armKillSwitch makes the ring wait for the device's kill switch too.
func (q *Queue) armKillSwitch() {
	sqe := q.sqe()
	sqe.PrepPollAdd(int32(q.dev.killFD), unix.POLLIN)
	sqe.UserData = userData(kindKill, 0)
}

// close lets go of all that would keep /dev/ublkcN busy.
func (q *Queue) close() {
	if q.mapped != nil {
		_ = unix.Munmap(q.mapped)
	}
	if q.ring != nil {
		if q.armed == 0 {
			// So that the handler's files are free at once.
			// Not with fetches in flight, which some kernels would wait for.
			_ = q.ring.UnregisterTables()
		}
		_ = q.ring.Close()
	}
	if q.bufs != nil {
		// The kernel pinned the pages: what is still in flight after a kill
		// writes to them, not to whatever is mapped here next.
		q.bufs.free()
	}
}
