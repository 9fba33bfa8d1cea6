package loop

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/ublk-loop/ublk-loop/ring"
	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// counted is a target that counts what its handlers are told the end of.
type counted struct {
	ublk.Target
	ends *atomic.Int64
}

func (c counted) NewHandler(q *ublk.Queue) (ublk.Handler, error) {
	h, err := c.Target.NewHandler(q)
	if err != nil {
		return nil, err
	}
	completer, ok := h.(ublk.Completer)
	if !ok {
		return nil, fmt.Errorf("a handler without Done: %T", h)
	}
	return countedHandler{completer, c.ends}, nil
}

type countedHandler struct {
	ublk.Completer
	ends *atomic.Int64
}

func (c countedHandler) Done(req *ublk.Request, res int32) {
	c.ends.Add(1)
	c.Completer.Done(req, res)
}

// A read or write that is alone is completed by the kernel, without a turn of
// ours, wherever a command need not unregister its pages first.
func TestKernelLoneRequestTakesNoTurn(t *testing.T) {
	ctl := ublktest.Kernel(t, ublktest.EveryKernel)
	disk := nullDisk(t, 64, nil)
	for mode, own := range map[ublk.BufferMode]bool{ublk.BufferAutoRegister: true, ublk.BufferCopy: true, ublk.BufferRegister: false} {
		t.Run(mode.String(), func(t *testing.T) {
			var ends atomic.Int64
			s := attachMode(t, ctl, disk, subjectMode(mode), func(tgt ublk.Target) ublk.Target { return counted{tgt, &ends} })
			const n = 20
			for i := range int64(n) {
				if _, err := s.disk.WriteAt(s.mem[:4096], i<<12); err != nil {
					t.Fatal(err)
				}
				if _, err := s.disk.ReadAt(s.mem[:4096], i<<12); err != nil {
					t.Fatal(err)
				}
			}
			own := own && keepsLinked(t)
			if got := ends.Load(); own && got != 0 || !own && got != 2*n {
				t.Errorf("of %d requests, %d took a turn more", 2*n, got)
			}
		})
	}
}

// keepsLinked reports whether the kernel keeps what a linked command says, so
// that a request's commit may be one.
func keepsLinked(t *testing.T) bool {
	t.Helper()
	r, err := ring.New(ring.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	keeps := r.Features()&ring.IORING_FEAT_NO_IOWAIT != 0
	ublktest.CheckAbility(t, ublktest.LinkedCommands, keeps)
	return keeps
}

func subjectMode(buffers ublk.BufferMode) mode {
	return mode{zeroCopy: buffers, direct: SwitchOn, sector: 4096, queues: 1}
}
