package ublk

import (
	"github.com/ublk-loop/ublk-loop/ring"
	"github.com/ublk-loop/ublk-loop/ublk/uapi"
)

// This file fills the commands that a queue sends to /dev/ublkcN. Its unsafe
// casts lay a struct over the 16 bytes that an entry carries for a driver; the
// layouts are checked in abi_test.go.

// autoBufFallback asks the driver to deliver a request unregistered rather
// than fail it, in the place that ublk_auto_buf_reg.flags has in an address.
const autoBufFallback = uapi.UBLK_AUTO_BUF_REG_FALLBACK << 16

// ioCommand sends a fetch, or a commit and fetch, for a request's tag.
func (q *Queue) ioCommand(op uint32, req *Request, result int32) {
	sqe := q.thread.sqe()
	sqe.PrepURingCmd(ring.FD(q.dev.charFD), op)
	sqe.UserData = q.userData(kindFetch, req.tag)
	cmd := (*uapi.IOCmd)(sqe.Payload())
	cmd.QID = q.id
	cmd.Tag = req.tag
	cmd.Result = result
	switch q.mode {
	case BufferCopy:
		cmd.Addr = q.bufs.address(req.tag)
	case BufferAutoRegister:
		sqe.Addr = uint64(q.bufs.first+req.tag) | autoBufFallback
	}
}

// bufferCommand sends a command that takes the request's pages into the ring's
// table at req.bufIndex, or out of it.
func (q *Queue) bufferCommand(op uint32, req *Request) *ring.SQE {
	sqe := q.thread.sqe()
	sqe.PrepURingCmd(ring.FD(q.dev.charFD), op)
	cmd := (*uapi.IOCmd)(sqe.Payload())
	cmd.QID = q.id
	cmd.Tag = req.tag
	cmd.Addr = uint64(req.bufIndex)
	return sqe
}
