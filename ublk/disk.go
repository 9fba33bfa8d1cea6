package ublk

import (
	"errors"
	"io"

	"golang.org/x/sys/unix"
)

// Syncer is an io.ReaderAt of a [Disk] that can flush. *os.File is a Syncer.
type Syncer interface {
	// Sync returns when all earlier writes are on the medium.
	Sync() error
}

// Discarder is an io.ReaderAt of a [Disk] that can free space.
type Discarder interface {
	// Discard frees the space of n bytes at off. Their contents are lost.
	Discard(off, n int64) error
}

// ZeroWriter is an io.ReaderAt of a [Disk] that has a fast way to write zeroes.
type ZeroWriter interface {
	// WriteZeroes makes n bytes at off read as zeroes.
	WriteZeroes(off, n int64) error
}

// Disk is a Target over an io.ReaderAt, for a device in copy mode. The ReaderAt's other
// methods decide what the device can do: it can write if the ReaderAt is an io.WriterAt,
// flush if it is a [Syncer], discard if it is a [Discarder], and write zeroes if it is a
// [ZeroWriter].
//
// Each request has a goroutine, so the methods may wait. Several goroutines call them at
// once. The block layer does not order requests that are in flight together: users of the
// disk wait for one request before they send the next if the order matters. A request
// fails with the errno that an error wraps, or else with EIO. A read that ends early fails
// with EIO.
type Disk struct {
	// Inline makes the queue's thread call the methods. That is faster if they never
	// wait, for example for memory.
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

// maxRange is the largest discard or write-zeroes request of a Disk in bytes. Kernels
// before 6.11 lose the bits above 32.
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

// serve is the goroutine of one request.
func (d *Disk) serve(r AsyncRequest) {
	r.Complete(d.do(r.Op, r.Flags, r.Data(), int64(r.Offset()), int64(r.Bytes())))
}

// do carries out a request of n bytes at off. data is the buffer of a read or write.
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

// readFull fills data from byte off on. An io.ReaderAt may return io.EOF with the last
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
