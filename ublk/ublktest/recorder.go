package ublktest

import (
	"encoding/binary"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ring"
	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/uapi"
)

// recorded is the target of a Disk's device.
type recorded struct {
	disk   *Disk
	target ublk.Target
}

// NewHandler implements ublk.Target. The queue has mapped its descriptors, and
// sends its first commands next.
func (r *recorded) NewHandler(q *ublk.Queue) (ublk.Handler, error) {
	handler, err := r.target.NewHandler(q)
	if err != nil {
		return nil, err
	}
	sq, err := watchSubmissions(q.Ring())
	if err != nil {
		return nil, err
	}
	r.disk.sq = sq
	rec := &recorder{disk: r.disk, handler: handler, sq: sq}
	rec.done, _ = handler.(ublk.Completer)
	rec.parts, _ = handler.(ublk.PartCompleter)
	return rec, r.disk.char.takeCommands()
}

// recorder stands between a queue and the tested handler. Only the queue's thread uses
// it.
type recorder struct {
	disk    *Disk
	handler ublk.Handler
	done    ublk.Completer     // the handler, if it is a Completer
	parts   ublk.PartCompleter // the handler, if it is a PartCompleter
	sq      *submissions
	acting  bool // the queue is acting on an operation's result
}

var (
	_ ublk.Watcher       = (*recorder)(nil)
	_ ublk.PartCompleter = (*recorder)(nil)
)

// tag is the state of a Disk's tag. replies, requests and wake connect the test with the
// queue's thread. Only the queue's thread uses the other fields.
type tag struct {
	wake     int // an eventfd that signals a request in requests
	requests chan Request
	replies  chan Reply

	busy   bool // the handler has req
	req    Request
	reply  Reply
	flying int    // the handler's unfinished operations
	commit *int32 // the result that the queue has committed
	answer *int32 // the answer for the unfinished operation
	// answers are those for the unfinished parts, by their number.
	answers map[int]int32
}

func newTag() (*tag, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("make eventfd: %w", err)
	}
	return &tag{wake: fd, requests: make(chan Request, 1), replies: make(chan Reply, 1), answers: map[int]int32{}}, nil
}

func (t *tag) close() { _ = unix.Close(t.wake) }

// begin wakes the queue's thread for a request.
func (t *tag) begin(req Request) error {
	t.requests <- req
	one := [8]byte{1, 1, 1, 1, 1, 1, 1, 1} // not 0 in any byte order
	_, err := unix.Write(t.wake, one[:])
	return err
}

// Handle implements ublk.Handler: the driver has carried out the commit of the
// tag's last request, and has another.
func (r *recorder) Handle(req *ublk.Request) {
	t := r.disk.tags[req.Tag()]
	if t.busy {
		r.end(t, req)
	}
	sqe := req.SQE()
	sqe.PrepPollAdd(ring.FD(t.wake), unix.POLLIN)
}

// end sends the end of a request to the test.
func (r *recorder) end(t *tag, req *ublk.Request) {
	switch {
	case t.commit == nil:
		r.disk.fail("%v: the driver has a commit that the handler did not make", t.req.Op)
		t.commit = new(int32)
	case t.flying > 0 && !t.reply.Linked:
		r.disk.fail("%v: committed while an operation was in flight", t.req.Op)
	}
	req.Op, req.Sectors = t.req.Op, t.req.Sectors // for Data, because the driver copies the data only now
	t.reply.Result = *t.commit
	if req.Op == ublk.OpRead && *t.commit >= 0 {
		t.reply.Data = slices.Clone(req.Data())
	}
	t.busy, t.commit, t.flying, t.answer = false, nil, 0, nil
	t.replies <- t.reply
}

// Done implements ublk.Completer: a test has sent a request, or an operation of
// the handler has ended.
func (r *recorder) Done(req *ublk.Request, res int32) {
	t := r.disk.tags[req.Tag()]
	switch {
	case !t.busy:
		r.begin(t, req)
	case r.acting: // the end of a Forward, whose operations Forwarded has seen
		r.done.Done(req, res)
	default:
		r.ended(t, req, res, func(res int32) { r.done.Done(req, res) })
	}
}

// Forwarded implements ublk.Watcher: an operation of a Forward has ended.
func (r *recorder) Forwarded(req *ublk.Request, res int32, act func(int32)) {
	r.ended(r.disk.tags[req.Tag()], req, res, func(res int32) {
		r.acting = true
		defer func() { r.acting = false }()
		act(res)
	})
}

// PartDone implements ublk.PartCompleter: a part has ended.
func (r *recorder) PartDone(req *ublk.Request, part int, res int32) {
	t := r.disk.tags[req.Tag()]
	if answer, found := t.answers[part]; found {
		delete(t.answers, part)
		res = answer
	}
	r.ended(t, req, res, func(res int32) { r.parts.PartDone(req, part, res) })
}

// partOf returns the number of the part that an entry is for; ok is false for another entry.
func partOf(sqe *ring.SQE) (part int, ok bool) {
	part = int(sqe.UserData>>48) - 1
	return part, part >= 0
}

// ended passes the result of an operation, or the test's answer, to act.
func (r *recorder) ended(t *tag, req *ublk.Request, res int32, act func(int32)) {
	if t.commit != nil && !t.reply.Linked {
		r.disk.fail("%v: an operation ended after the commit", t.req.Op)
	}
	t.commit, t.reply.Linked = nil, false // a broken link also cancels the commit
	t.flying--
	if t.answer != nil {
		res, t.answer = *t.answer, nil
	}
	if t.req.Ended != nil {
		t.req.Ended(res)
	}
	r.sq.skip()
	act(res)
	r.look(t, req)
}

// begin passes the test's request to the handler.
func (r *recorder) begin(t *tag, req *ublk.Request) {
	var count [8]byte
	_, _ = unix.Read(t.wake, count[:])
	t.req, t.reply, t.busy = <-t.requests, Reply{}, true
	req.Op, req.Flags, req.StartSector, req.Sectors = t.req.Op, t.req.Flags, t.req.StartSector, t.req.Sectors
	copy(req.Data(), t.req.Data)
	r.sq.skip()
	r.handler.Handle(req)
	r.look(t, req)
}

// look examines the entries that a call of the handler for a tag has made. In such a call the
// handler can also go on with other requests, whose operations are parts.
func (r *recorder) look(t *tag, req *ublk.Request) {
	var last *ring.SQE // the handler's last entry in this call
	for sqe := range r.sq.next() {
		of := r.disk.tags[uint16(sqe.UserData)]
		if sqe.Opcode == ring.IORING_OP_URING_CMD && uint32(sqe.Off) == uapi.UBLK_U_IO_COMMIT_AND_FETCH_REQ {
			r.committed(of, sqe, last)
			continue
		}
		of.reply.Entries = append(of.reply.Entries, *sqe)
		of.flying++
		if part, ok := partOf(sqe); ok {
			r.substitutePart(of, sqe, part)
			continue
		}
		last = sqe
	}
	if last != nil && len(t.req.Answers) > 0 {
		r.substitute(t, last, req)
	}
}

// committed records a commit. last is the handler's last entry before it.
func (r *recorder) committed(t *tag, sqe, last *ring.SQE) {
	if t.commit != nil {
		r.disk.fail("%v: a second commit", t.req.Op)
	}
	// struct ublksrv_io_cmd: q_id, tag, result
	payload := (*[8]byte)(sqe.Payload())
	result := int32(binary.NativeEndian.Uint32(payload[4:]))
	t.commit = &result
	t.reply.Linked = last != nil && last.Flags&ring.IOSQE_IO_LINK != 0
}

// substitutePart is substitute for a part.
func (r *recorder) substitutePart(t *tag, sqe *ring.SQE, part int) {
	if len(t.req.Answers) == 0 {
		return
	}
	t.answers[part] = t.req.Answers[0]
	t.req.Answers = t.req.Answers[1:]
	*sqe = ring.SQE{UserData: sqe.UserData}
	sqe.PrepNop()
}

// substitute replaces an operation for which the test has an answer, by one that fails or
// one that does nothing.
func (r *recorder) substitute(t *tag, sqe *ring.SQE, req *ublk.Request) {
	answer := t.req.Answers[0]
	t.req.Answers, t.answer = t.req.Answers[1:], &answer
	was := *sqe
	*sqe = ring.SQE{UserData: was.UserData}
	defer func() { sqe.Flags |= was.Flags &^ ring.IOSQE_FIXED_FILE }()
	if answer < 0 || t.reply.Linked && uint64(answer) != req.Bytes() {
		sqe.PrepPollAdd(ring.File{}, unix.POLLIN) // EBADF, which breaks a link like a short result
		return
	}
	sqe.PrepNop()
}
