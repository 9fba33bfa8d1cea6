package ublk

import (
	"errors"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ring"
	"github.com/ublk-loop/ublk-loop/ublk/uapi"
)

// In BufferRegister the pages of a request with data are registered before the handler sees the
// request, and unregistered before its commit. The commit comes in any case.
func TestQueueRegisters(t *testing.T) {
	for _, mode := range []BufferMode{BufferRegister, BufferAutoRegister} {
		t.Run(mode.String(), func(t *testing.T) {
			b := onBench(t, mode, "/dev/null")
			slot := uint64(b.bufs.first) + benchDepth
			if most := 2 * bufferSlots(mode, benchDepth); slot+benchDepth > uint64(most) {
				t.Errorf("slots up to %d of a table of %d", slot+benchDepth, most)
			}
			auto := uint64(0)
			if mode == BufferAutoRegister {
				auto = (uint64(b.bufs.first) + 2) | uapi.UBLK_AUTO_BUF_REG_FALLBACK<<16
			}
			for _, op := range []Op{OpRead, OpWrite} {
				for _, result := range []int32{4096, -5} {
					b.handled = nil
					if err := b.deliver(2, op, flagNeedRegister); err != nil || len(b.handled) > 0 {
						t.Fatalf("error %v, handled %d before its pages are there", err, b.handled)
					}
					b.wantCommands(command{op: uapi.UBLK_U_IO_REGISTER_IO_BUF, kind: kindRegister, tag: 2, addr: slot + 2})
					if err := b.complete(kindRegister, &b.reqs[2], 0); err != nil || !slices.Equal(b.handled, []int{2}) {
						t.Fatalf("error %v, handled %d", err, b.handled)
					}
					if _, index := b.reqs[2].Buffer(0); uint64(index) != slot+2 {
						t.Errorf("the pages are in slot %d, want %d", index, slot+2)
					}
					b.reqs[2].ForwardAndComplete(File{}, 0)
					b.wantCommands() // the kernel cannot complete it, because its pages must be unregistered
					if err := b.complete(kindForward, &b.reqs[2], result); err != nil {
						t.Fatal(err)
					}
					b.wantCommands(
						command{
							op: uapi.UBLK_U_IO_UNREGISTER_IO_BUF, kind: kindUnregister, tag: 2, addr: slot + 2,
							flags: ring.IOSQE_IO_HARDLINK | ring.IOSQE_CQE_SKIP_SUCCESS,
						},
						command{op: uapi.UBLK_U_IO_COMMIT_AND_FETCH_REQ, kind: kindFetch, tag: 2, result: result, auto: auto},
					)
				}
			}
			if err := b.deliver(2, OpFlush, 0); err != nil {
				t.Fatal(err)
			}
			b.reqs[2].Complete(nil)
			if got := b.commands(); len(got) != 1 || got[0].op != uapi.UBLK_U_IO_COMMIT_AND_FETCH_REQ {
				t.Errorf("a flush with the same tag: the driver was told %+v, want a commit", got)
			}
			if err := b.complete(kindUnregister, &b.reqs[2], -22); !errors.Is(err, unix.EINVAL) {
				t.Errorf("pages that stay registered: error %v, want EINVAL", err)
			}
		})
	}
}

// A request whose pages cannot be registered fails with the reason. The next request with the
// same tag is not affected.
func TestQueueRegisterFails(t *testing.T) {
	for _, mode := range []BufferMode{BufferRegister, BufferAutoRegister} {
		t.Run(mode.String(), func(t *testing.T) {
			b := onBench(t, mode, "/dev/null")
			if err := b.deliver(1, OpWrite, flagNeedRegister); err != nil {
				t.Fatal(err)
			}
			b.commands()
			if err := b.complete(kindRegister, &b.reqs[1], -int32(unix.ENOMEM)); err != nil || len(b.handled) > 0 {
				t.Fatalf("error %v, handled %d", err, b.handled)
			}
			got := b.commands()
			if len(got) != 1 || got[0].op != uapi.UBLK_U_IO_COMMIT_AND_FETCH_REQ || got[0].result != -int32(unix.ENOMEM) {
				t.Errorf("the driver was told %+v, want a commit with ENOMEM alone", got)
			}
			if n := b.counters.ops[OpWrite].errors.Load(); n != 1 || b.inService != 0 {
				t.Errorf("%d errors are counted, %d in service, want 1 and 0", n, b.inService)
			}
		})
	}
}

// The command that unregisters pages and the commit behind it are in the same submit. Otherwise the kernel would not
// link them, and could carry out the commit first.
func TestQueueUnregistersInOneSubmit(t *testing.T) {
	for room, submits := range []bool{true, true, false} {
		b := onBench(t, BufferRegister, "/dev/null")
		if err := b.deliver(1, OpWrite, flagNeedRegister); err != nil {
			t.Fatal(err)
		}
		b.commands()
		if err := b.complete(kindRegister, &b.reqs[1], 0); err != nil {
			t.Fatal(err)
		}
		r := b.thread.ring
		nops := r.SQSpace() - room
		for range nops {
			r.GetSQE().PrepNop()
		}
		waiting := nops + 2
		if submits {
			waiting = 2
		}
		b.reqs[1].Complete(nil)
		if got := len(b.entries) - r.SQSpace(); got != waiting {
			t.Errorf("room for %d: %d entries wait for the next submit, want %d", room, got, waiting)
		}
	}
}

// A request without pages, or with registered pages, goes to the handler at once.
func TestQueueRegistersNothing(t *testing.T) {
	for _, tt := range []struct {
		mode  BufferMode
		op    Op
		flags Flags
	}{
		{BufferCopy, OpRead, flagNeedRegister},
		{BufferCopy, OpFlush, 0},
		{BufferRegister, OpFlush, 0},
		{BufferRegister, OpDiscard, 0},
		{BufferRegister, OpWriteZeroes, 0},
		{BufferAutoRegister, OpRead, 0},
		{BufferAutoRegister, OpWrite, FlagFUA},
		{BufferAutoRegister, OpDiscard, 0},
	} {
		b := onBench(t, tt.mode, "/dev/null")
		if err := b.deliver(0, tt.op, tt.flags); err != nil || len(b.handled) != 1 {
			t.Errorf("%v, %v: error %v, handled %d times", tt.mode, tt.op, err, len(b.handled))
		}
		if _, index := b.reqs[0].Buffer(0); index != b.bufs.first {
			t.Errorf("%v, %v: slot %d, want %d", tt.mode, tt.op, index, b.bufs.first)
		}
		b.reqs[0].CompleteErrno(-1)
		if got := b.commands(); len(got) != 1 || got[0].op != uapi.UBLK_U_IO_COMMIT_AND_FETCH_REQ {
			t.Errorf("%v, %v: the driver was told %+v", tt.mode, tt.op, got)
		}
	}
}
