package ublk

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ring"
	"github.com/ublk-loop/ublk-loop/ublk/uapi"
)

// forwarding is a handler that forwards its first request and keeps the others.
type forwarding struct {
	q       *Queue
	fd      int
	alone   bool // by ForwardAndComplete
	told    bool
	results chan int32 // results that Done received
	data    []byte     // the request's data at the call of Done
}

func (f *forwarding) NewHandler(q *Queue) (Handler, error) {
	f.q, f.results = q, make(chan int32, 1)
	return f, nil
}

func (f *forwarding) Handle(req *Request) {
	if f.told {
		return
	}
	f.told = true
	file, err := f.q.RegisterFile(f.fd)
	if err != nil {
		req.Complete(err)
		return
	}
	if f.alone {
		req.ForwardAndComplete(file, 0)
	} else {
		req.Forward(file, 0)
	}
}

func (f *forwarding) Done(req *Request, res int32) {
	f.data = bytes.Clone(req.Data())
	req.CompleteErrno(res)
	f.results <- res
}

// fileOf returns a file of some bytes, open for reading.
func fileOf(t *testing.T, data []byte) int {
	t.Helper()
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return openFile(t, path, unix.O_RDONLY)
}

func openFile(t *testing.T, path string, flags int) int {
	t.Helper()
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	return fd
}

func pipe(t *testing.T) (r, w int) {
	t.Helper()
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = unix.Close(fds[0]), unix.Close(fds[1]) })
	return fds[0], fds[1]
}

func pattern(n int) []byte {
	data := make([]byte, n)
	for i := range data {
		data[i] = byte(i * 7)
	}
	return data
}

// A read in several parts is one read for the handler, with all its bytes.
func TestForwardGoesOnAfterShortResults(t *testing.T) {
	r, w := pipe(t)
	data := pattern(nullRequestBytes)
	if _, err := unix.Write(w, data[:1000]); err != nil {
		t.Fatal(err)
	}
	f := &forwarding{fd: r}
	q := serveNull(t, 1, f)
	settled(t, q, func(s Stats) bool { return s.Retries == 1 })
	if _, err := unix.Write(w, data[1000:]); err != nil {
		t.Fatal(err)
	}
	if res := within(t, f.results, "the result"); res != 0 || !bytes.Equal(f.data, data) {
		t.Errorf("result %d, want 0 and the bytes of the pipe", res)
	}
	if s := q.dev.Stats(); s.Retries != 1 {
		t.Errorf("%d retries, want 1", s.Retries)
	}
}

// Done receives 0 or an errno, once. A read that makes no progress fails.
func TestForwardResults(t *testing.T) {
	for _, tt := range []struct {
		name    string
		fd      int
		want    int32
		retries uint64
	}{
		{"whole", fileOf(t, pattern(nullRequestBytes)), 0, 0},
		{"the file ends", fileOf(t, pattern(1000)), -int32(unix.EIO), 1},
		{"nothing there", fileOf(t, nil), -int32(unix.EIO), 0},
		{"not open for reading", openFile(t, os.DevNull, unix.O_WRONLY), -int32(unix.EBADF), 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := &forwarding{fd: tt.fd}
			q := serveNull(t, 1, f)
			if res := within(t, f.results, "the result"); res != tt.want {
				t.Errorf("result %d, want %d", res, tt.want)
			}
			if got := q.dev.Stats().Retries; got != tt.retries {
				t.Errorf("%d retries, want %d", got, tt.retries)
			}
		})
	}
}

// EAGAIN from a worker is a result, and EINTR is not. A repeated operation has no file in this
// test, so it fails.
func TestForwardErrnos(t *testing.T) {
	f := &forwarding{told: true}
	q := serveNull(t, 1, f)
	settled(t, q, func(s Stats) bool { return s.InService == 1 })
	for _, tt := range []struct {
		onWorker bool
		res      int32
		again    bool
	}{
		{false, -int32(unix.EAGAIN), true},
		{true, -int32(unix.EAGAIN), false},
		{false, -int32(unix.EINTR), true},
		{true, -int32(unix.EINTR), true},
		{false, -int32(unix.ENOSPC), false},
	} {
		err := q.thread.do(func() error {
			req, before := &q.reqs[0], q.counters.retries.Load()
			req.state, req.forward = stateHandler, forward{onWorker: tt.onWorker}
			q.forwarded(req, tt.res)
			if wants := tt.onWorker || tt.res == -int32(unix.EAGAIN); req.forward.onWorker != wants {
				t.Errorf("%+v: on a worker: %v", tt, req.forward.onWorker)
			}
			if again := q.counters.retries.Load() > before; again != tt.again || again != (req.state == stateHandler) {
				t.Errorf("%+v: asked for again: %v", tt, again)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		want := tt.res
		if tt.again {
			want = -int32(unix.EBADF) // the result for the zero File
		}
		if res := within(t, f.results, "the result"); res != want {
			t.Errorf("%+v: result %d, want %d", tt, res, want)
		}
		settled(t, q, func(s Stats) bool { return s.InService == 1 })
	}
}

// What has to wait goes to a worker thread of the ring at once.
func TestForwardOnAWorker(t *testing.T) {
	b := onBench(t, BufferCopy, "/dev/null")
	failEnters(t, unix.EIO)
	for b.thread.ring.SQSpace() > 0 {
		b.thread.sqe().PrepNop() // the next entry is the thread's spare one
	}
	for _, onWorker := range []bool{false, true} {
		for _, op := range []Op{OpRead, OpWrite} {
			req := &b.reqs[0]
			req.Op, req.Sectors, req.forward = op, 8, forward{onWorker: onWorker}
			req.sendForward(ring.IOSQE_IO_LINK)
			flags := b.thread.spare.Flags
			if flags&ring.IOSQE_IO_LINK == 0 || flags&ring.IOSQE_ASYNC != 0 != onWorker {
				t.Errorf("%v, on a worker %v: flags %#x", op, onWorker, flags)
			}
		}
	}
}

// ForwardAndComplete does not call Done, whatever the result.
func TestForwardAndComplete(t *testing.T) {
	for _, tt := range []struct {
		name   string
		data   []byte
		errors uint64
	}{{"whole", pattern(nullRequestBytes), 0}, {"the file ends", pattern(1000), 1}} {
		t.Run(tt.name, func(t *testing.T) {
			f := &forwarding{fd: fileOf(t, tt.data), alone: true}
			q := serveNull(t, 1, f)
			// The next request comes after the first is complete.
			s := settled(t, q, func(s Stats) bool {
				return s.Ops[OpRead].Requests == 1 && s.Ops[OpRead].Errors == tt.errors && s.InService == 1
			})
			if s.Ops[OpRead].Errors != tt.errors || len(f.results) != 0 {
				t.Errorf("%d errors, %d calls of Done; want %d, 0", s.Ops[OpRead].Errors, len(f.results), tt.errors)
			}
		})
	}
}

// After a short result, a read continues at a multiple of Block. It fails if the result is less
// than a block.
func TestForwardGoesOnAtABlock(t *testing.T) {
	for _, tt := range []struct {
		block   uint32
		n, done uint32
		fails   bool
	}{
		{512, 1000, 512, false},
		{512, 1024, 1024, false},
		{512, 511, 0, true},
		{1, 511, 511, false},
		{0, 511, 511, false},
		{1, 0, 0, true},
	} {
		q := serveNull(t, 1, &forwarding{told: true})
		settled(t, q, func(s Stats) bool { return s.InService == 1 })
		err := q.thread.do(func() error {
			req := &q.reqs[0]
			if req.state != stateHandler {
				return errors.New("the handler does not have the second request")
			}
			req.forward = forward{file: File{Block: tt.block}}
			q.forwardedBytes(req, tt.n)
			if failed := req.state == stateDriver; failed != tt.fails || !failed && req.forward.done != tt.done {
				t.Errorf("%+v: failed %v, goes on at %d", tt, failed, req.forward.done)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// A file with direct I/O has a block that suffices on any disk.
func TestRegisterFileBlock(t *testing.T) {
	fd := fileOf(t, nil)
	q := serveNull(t, 1, &forwarding{told: true})
	for _, tt := range []struct {
		flags int
		block uint32
	}{{0, 1}, {unix.O_DIRECT, 4096}} {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFL, tt.flags); err != nil {
			t.Fatal(err)
		}
		if err := q.thread.do(func() error {
			file, err := q.RegisterFile(fd)
			if file.Block != tt.block {
				t.Errorf("flags %#x: blocks of %d, want %d", tt.flags, file.Block, tt.block)
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
}

// A request without data cannot be forwarded.
func TestForwardOfAFlush(t *testing.T) {
	f := &forwarding{fd: fileOf(t, nil)}
	q := serveNull(t, 1, targetOf(func(q *Queue) (Handler, error) {
		q.descs[0] = uapi.IODesc{OpFlags: uapi.UBLK_IO_OP_FLUSH}
		return f.NewHandler(q)
	}))
	settled(t, q, func(s Stats) bool { return s.Ops[OpFlush].Errors == 1 })
	if len(f.results) != 0 {
		t.Error("something was forwarded")
	}
}

// A result for a handler without Done ends the device.
func TestForwardNeedsDone(t *testing.T) {
	var file File
	q := serveNull(t, 1, HandlerFunc(func(req *Request) { req.Forward(file, 0) }))
	if err := within(t, q.ends, "the queue's end"); !errors.Is(err, unix.EINVAL) {
		t.Errorf("the queue ends with %v, want EINVAL", err)
	}
}

// targetOf is a function as a Target.
type targetOf func(*Queue) (Handler, error)

func (f targetOf) NewHandler(q *Queue) (Handler, error) { return f(q) }
