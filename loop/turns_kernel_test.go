package loop

import (
	"testing"

	"github.com/ublk-loop/ublk-loop/ring"
	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// timedRequests returns how many reads and writes of a device ended in a turn of its
// thread. Only those are timed.
func timedRequests(dev *Device) uint64 {
	ops := dev.dev.Stats().Ops
	return ops[ublk.OpRead].Duration.Count() + ops[ublk.OpWrite].Duration.Count()
}

// The kernel completes a lone read or write without a turn of the queue's thread, unless
// a command has to unregister its pages first.
func TestKernelLoneRequestTakesNoTurn(t *testing.T) {
	ctl := ublktest.Kernel(t, ublktest.EveryKernel)
	disk := nullDisk(t, 64, nil)
	for mode, own := range map[ublk.BufferMode]bool{ublk.BufferAutoRegister: true, ublk.BufferCopy: true, ublk.BufferRegister: false} {
		t.Run(mode.String(), func(t *testing.T) {
			s := attachMode(t, ctl, disk, subjectMode(mode))
			before := timedRequests(s.dev)
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
			if got := timedRequests(s.dev) - before; own && got != 0 || !own && got != 2*n {
				t.Errorf("of %d requests, %d took a turn more", 2*n, got)
			}
		})
	}
}

// keepsLinked reports whether the kernel keeps the payload of a linked command, so that a
// request's commit can be linked.
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
