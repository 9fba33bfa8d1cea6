package ublk

import (
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ring"
	"github.com/ublk-loop/ublk-loop/ublk/uapi"
)

// timedControl is a Transport that measures the time of each command in the kernel.
type timedControl struct {
	*uringControl
	took map[uint32][]time.Duration // by operation
}

func (t *timedControl) Do(cmd Command) error {
	start := time.Now()
	err := t.do(cmd)
	t.took[cmd.Op] = append(t.took[cmd.Op], time.Since(start))
	return err
}

func (t *timedControl) Close() error {
	t.close()
	return nil
}

// openTimed opens a control whose commands may come from any thread, one at a time.
func openTimed(b *testing.B) *timedControl {
	b.Helper()
	u, err := openURingControl()
	if err != nil {
		b.Skipf("no ublk here: %v", err)
	}
	_ = u.r.Close()
	if u.r, err = ring.New(ring.Options{Entries: 4, SQE128: true}); err != nil {
		b.Fatal(err)
	}
	return &timedControl{u, make(map[uint32][]time.Duration)}
}

// emptyDisk is a device that reads zeros.
type emptyDisk struct{}

func (emptyDisk) NewHandler(*Queue) (Handler, error) { return emptyDisk{}, nil }
func (emptyDisk) Handle(req *Request)                { req.CompleteErrno(-int32(unix.EIO)) }

// This benchmark measures the commands of the driver alone, in the life of a device with one
// queue of depth 128. With a clock of instructions: docs/performance.md has the command.
func BenchmarkKernelCommands(b *testing.B) {
	timed := openTimed(b)
	ctl := newControl(timed, nil)
	defer func() { _ = ctl.Close() }()
	for b.Loop() {
		dev, err := ctl.Add(Options{Queues: 1, Depth: 128})
		if err != nil {
			b.Fatal(err)
		}
		if err = dev.SetParams(Params{Size: 1 << 30}); err == nil {
			err = dev.Start(emptyDisk{})
		}
		if err != nil {
			b.Error(err)
		}
		if err := dev.Close(); err != nil {
			b.Fatal(err)
		}
	}
	for _, c := range []struct {
		name string
		op   uint32
	}{
		{"ADD_DEV", uapi.UBLK_U_CMD_ADD_DEV},
		{"SET_PARAMS", uapi.UBLK_U_CMD_SET_PARAMS},
		{"START_DEV", uapi.UBLK_U_CMD_START_DEV},
		{"STOP_DEV", uapi.UBLK_U_CMD_STOP_DEV},
		{"DEL_DEV", uapi.UBLK_U_CMD_DEL_DEV},
	} {
		took := timed.took[c.op]
		if len(took) == 0 {
			continue
		}
		slices.Sort(took)
		b.ReportMetric(float64(took[len(took)/2].Microseconds()), "us-"+c.name)
	}
}
