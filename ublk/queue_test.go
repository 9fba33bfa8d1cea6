package ublk

import (
	"errors"
	"os"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ring"
	"github.com/ublk-loop/ublk-loop/ublk/uapi"
)

// The driver gets each result of a handler unchanged, with the tag's buffer.
func TestQueueCommits(t *testing.T) {
	b := onBench(t, BufferCopy, "/dev/null")
	for _, tt := range []struct {
		op            Op
		errno, result int32
	}{
		{OpRead, 0, 4096},
		{OpWrite, 0, 4096},
		{OpFlush, 0, 0},
		{OpDiscard, 0, 0},
		{OpWriteZeroes, 0, 0},
		{OpRead, -5, -5},
		{OpWrite, -28, -28},
		{OpFlush, -5, -5},
		{OpDiscard, -28, -28},
		{OpWriteZeroes, -5, -5},
	} {
		for tag := range benchDepth {
			if err := b.deliver(tag, tt.op, 0); err != nil {
				t.Fatal(err)
			}
			if b.inService != 1 {
				t.Errorf("%d requests are in service, want 1", b.inService)
			}
			b.reqs[tag].CompleteErrno(tt.errno)
			b.wantCommands(command{
				op: uapi.UBLK_U_IO_COMMIT_AND_FETCH_REQ, kind: kindFetch, tag: uint16(tag), result: tt.result,
				addr: b.bufs.address(uint16(tag)),
			})
		}
	}
	if b.inService != 0 || len(b.handled) != 10*benchDepth {
		t.Errorf("%d requests are in service, %d were handled", b.inService, len(b.handled))
	}
}

// Each tag has a buffer of its own, which can be reached from any byte on.
func TestQueueBuffers(t *testing.T) {
	b := onBench(t, BufferCopy, "/dev/null")
	first, _ := b.reqs[0].Buffer(0)
	for tag := range benchDepth {
		if err := b.deliver(tag, OpRead, 0); err != nil {
			t.Fatal(err)
		}
		req := &b.reqs[tag]
		addr, index := req.Buffer(512)
		if want := first + uint64(tag)*8192 + 512; addr != want || uint32(index) != b.BufferSlot(tag) || index != uint16(benchDepth+tag) {
			t.Errorf("tag %d: address %#x in slot %d, want %#x", tag, addr, index, want)
		}
		if data := req.Data(); len(data) != 4096 || uint64(uintptr(unsafe.Pointer(&data[0]))) != addr-512 {
			t.Errorf("tag %d: %d bytes of data elsewhere", tag, len(data))
		}
	}
}

// A queue ends with its last tag, and not earlier. Any unknown answer to a fetch is an error.
func TestQueueEnds(t *testing.T) {
	b := onBench(t, BufferCopy, "/dev/null")
	if err := b.complete(kindFetch, &b.reqs[0], -int32(unix.EINVAL)); !errors.Is(err, unix.EINVAL) {
		t.Errorf("a fetch that fails: error %v, want EINVAL", err)
	}
	for tag := range benchDepth {
		if len(b.ends) > 0 {
			t.Fatalf("it has ended before tag %d has", tag)
		}
		if err := b.complete(kindFetch, &b.reqs[tag], uapi.UBLK_IO_RES_ABORT); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.end(); err != nil {
		t.Errorf("it ends with %v", err)
	}
	if b.thread.queues[1] != nil || b.thread.leaving {
		t.Error("it has left something, or taken the other queue with it")
	}
}

// If the driver refuses the fetches, fetchAll returns its error, and the queue ends when all
// fetches have ended.
func TestQueueIsRefused(t *testing.T) {
	b := onBench(t, BufferCopy, t.TempDir()+"/file") // a file without commands
	if err := b.fetchAll(); !errors.Is(err, unix.EOPNOTSUPP) {
		t.Fatalf("error %v, want EOPNOTSUPP", err)
	}
	if n := b.thread.ring.CQReady(); n != benchDepth {
		t.Fatalf("%d completions, want %d", n, benchDepth)
	}
	for i := range uint32(benchDepth) {
		cqe := b.thread.ring.CQE(i)
		if err := b.thread.complete(cqe.UserData, cqe.Res); err != nil {
			t.Errorf("fetch %d: %v", i, err)
		}
	}
	if err := b.end(); err != nil {
		t.Errorf("it ends with %v", err)
	}
	if err := onBench(t, BufferCopy, "/dev/null").fetchAll(); err != nil {
		t.Errorf("of a driver that takes them: error %v", err)
	}
}

// A queue has eight slots for files, and another queue of its thread has eight others.
func TestQueueRegistersFiles(t *testing.T) {
	b := onBench(t, BufferCopy, "/dev/null")
	for i := range uint32(defaultFiles) {
		file, err := b.RegisterFile(int(os.Stdin.Fd()))
		if err != nil || file.File != ring.FixedFile(defaultFiles+i) {
			t.Errorf("file %d: %v, error %v; want slot %d", i, file, err, defaultFiles+i)
		}
	}
	if _, err := b.RegisterFile(int(os.Stdin.Fd())); !errors.Is(err, unix.ENFILE) {
		t.Errorf("one more: error %v, want ENFILE", err)
	}
}

// ForwardAndComplete links the commit to the operation. If the link breaks, a turn of the thread
// commits the request.
func TestForwardAndCompleteLinks(t *testing.T) {
	for _, res := range []int32{nullRequestBytes / 2, -int32(unix.EIO)} {
		b := onBench(t, BufferCopy, "/dev/null")
		b.thread.linkable = true // on every kernel, because the test plays it
		if err := b.deliver(0, OpRead, 0); err != nil {
			t.Fatal(err)
		}
		req := &b.reqs[0]
		req.ForwardAndComplete(File{}, 0)
		commit := command{op: uapi.UBLK_U_IO_COMMIT_AND_FETCH_REQ, kind: kindFetch, result: nullRequestBytes, addr: b.bufs.address(0)}
		b.wantCommands(commit)
		if req.state != stateLinked || b.inService != 0 || req.begun != 0 {
			t.Errorf("state %d, %d in service, timed from %v; want %d, 0, 0", req.state, b.inService, req.begun, stateLinked)
		}
		if err := b.complete(kindForward, req, res); err != nil {
			t.Fatal(err)
		}
		if res > 0 { // the rest is read from no file
			if err := b.complete(kindForward, req, -int32(unix.EIO)); err != nil {
				t.Fatal(err)
			}
		}
		commit.result = -int32(unix.EIO)
		b.wantCommands(commit)
		b.endTurn()
		if s := b.dev.Stats(); s.Ops[OpRead].Requests != 1 || s.Ops[OpRead].Errors != 1 || s.InService != 0 {
			t.Errorf("counted %+v", s.Ops[OpRead])
		}
	}
}

// The kernel does not complete the requests of the sample, nor a request for which the ring has
// no room.
func TestForwardAndCompleteDoesNotLink(t *testing.T) {
	b := onBench(t, BufferCopy, "/dev/null")
	b.thread.linkable = true
	for what, prepare := range map[string]func(){
		"of the sample": func() { b.linkable = timeEvery - 1 },
		"in a full ring": func() {
			for b.thread.ring.SQSpace() > 1 {
				b.thread.sqe().PrepNop()
			}
		},
	} {
		if err := b.deliver(0, OpRead, 0); err != nil {
			t.Fatal(err)
		}
		prepare()
		b.reqs[0].ForwardAndComplete(File{}, 0)
		b.wantCommands()
		if req := &b.reqs[0]; req.state != stateHandler || req.begun == 0 {
			t.Errorf("%s: state %d, timed from %v", what, req.state, req.begun)
		}
		b.reqs[0].Complete(nil)
		b.commands()
	}
}
