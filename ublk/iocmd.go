package ublk

import (
	"github.com/ublk-loop/ublk-loop/ring"
	"github.com/ublk-loop/ublk-loop/ublk/uapi"
)

// This file fills the commands that a queue sends to /dev/ublkcN. Its unsafe casts write a
// struct to the 16 bytes of an entry that are for a driver. abi_test.go of package uapi
// checks the layout.

// autoBufFallback makes the driver deliver a request whose pages it could not register,
// instead of failing it. The flag is at the place of ublk_auto_buf_reg.flags in an address.
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

// bufferCommand sends a command that registers the request's pages in the ring's buffer
// table at req.bufIndex, or unregisters them.
func (q *Queue) bufferCommand(op uint32, req *Request) *ring.SQE {
	sqe := q.thread.sqe()
	sqe.PrepURingCmd(ring.FD(q.dev.charFD), op)
	cmd := (*uapi.IOCmd)(sqe.Payload())
	cmd.QID = q.id
	cmd.Tag = req.tag
	cmd.Addr = uint64(req.bufIndex)
	return sqe
}
