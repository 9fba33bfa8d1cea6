package ublk

import (
	"errors"
	"io"

	"golang.org/x/sys/unix"
)

// Syncer is what a [Disk] may be over that can flush: *os.File is one.
type Syncer interface {
	// Sync returns when what was written is on the medium.
	Sync() error
}

// Discarder is what a [Disk] may be over that can give space back.
type Discarder interface {
	// Discard gives up the contents of n bytes at off.
	Discard(off, n int64) error
}

// ZeroWriter is what a [Disk] may be over that has a fast way to write zeroes.
type ZeroWriter interface {
	// WriteZeroes makes n bytes at off read as zeroes.
	WriteZeroes(off, n int64) error
}

// Disk is a Target over an io.ReaderAt, for a device in copy mode. What else the
// ReaderAt is decides what the device can do: an io.WriterAt makes it writable, a
// [Syncer] makes it flush, a [Discarder] discard and a [ZeroWriter] write zeroes.
//
// Each request has a goroutine, so the methods may wait, and are called by several
// goroutines at once. The block layer does not order requests that are under way
// together: callers of the disk do. A request fails with the errno that an error
// wraps, or EIO, which is also what a read gets that ends early.
type Disk struct {
	// Inline has the methods called on the queue's thread instead. That is faster
	// for what never waits, such as memory.
	Inline bool

	reader io.ReaderAt
	writer io.WriterAt
	syncer Syncer
	trims  Discarder
	zeroes ZeroWriter
}

var (
	_ Target    = (*Disk)(nil)
	_ Describer = (*Disk)(nil)
)

// NewDisk returns a Disk over r.
func NewDisk(r io.ReaderAt) *Disk {
	d := &Disk{reader: r}
	d.writer, _ = r.(io.WriterAt)
	d.syncer, _ = r.(Syncer)
	d.trims, _ = r.(Discarder)
	d.zeroes, _ = r.(ZeroWriter)
	return d
}

// maxRange is the largest discard or write-zeroes request of a Disk in bytes:
// kernels before 6.11 lose the bits above 32.
const maxRange = 1 << 31

// Describe implements Describer.
func (d *Disk) Describe(p *Params) {
	p.ReadOnly = p.ReadOnly || d.writer == nil
	p.VolatileCache = d.syncer != nil
	if p.ReadOnly {
		return
	}
	if d.trims != nil && p.Discard.MaxBytes == 0 {
		p.Discard.MaxBytes = maxRange
	}
	if d.zeroes != nil && p.MaxWriteZeroesBytes == 0 {
		p.MaxWriteZeroesBytes = maxRange
	}
}

// NewHandler implements Target.
func (d *Disk) NewHandler(*Queue) (Handler, error) {
	if d.Inline {
		return HandlerFunc(d.serveInline), nil
	}
	return HandlerFunc(func(req *Request) { go d.serve(req.Async()) }), nil
}

func (d *Disk) serveInline(req *Request) {
	req.Complete(d.do(req.Op, req.Flags, req.Data(), int64(req.Offset()), int64(req.Bytes())))
}

// serve is the goroutine of one request. It ends with the methods that it calls.
func (d *Disk) serve(r AsyncRequest) {
	r.Complete(d.do(r.Op, r.Flags, r.Data(), int64(r.Offset()), int64(r.Bytes())))
}

// do carries out a request of n bytes at off, of which reads and writes have data.
func (d *Disk) do(op Op, flags Flags, data []byte, off, n int64) error {
	var err error
	switch {
	case op == OpRead:
		return readFull(d.reader, data, off)
	case op == OpFlush && d.syncer != nil:
		return d.syncer.Sync()
	case op == OpWrite && d.writer != nil:
		_, err = d.writer.WriteAt(data, off)
	case op == OpDiscard && d.trims != nil:
		err = d.trims.Discard(off, n)
	case op == OpWriteZeroes && d.zeroes != nil:
		err = d.zeroes.WriteZeroes(off, n)
	default:
		return unix.EOPNOTSUPP
	}
	if err == nil && flags&FlagFUA != 0 {
		return d.do(OpFlush, 0, nil, 0, 0)
	}
	return err
}

// readFull fills data from byte off on. An io.ReaderAt may say io.EOF with the last
// byte.
func readFull(r io.ReaderAt, data []byte, off int64) error {
	n, err := r.ReadAt(data, off)
	switch {
	case n == len(data):
		return nil
	case err == nil || errors.Is(err, io.EOF):
		return io.ErrUnexpectedEOF
	}
	return err
}
