package loop

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/loop/internal/statefile"
	"github.com/ublk-loop/ublk-loop/loop/internal/target"
	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/uapi"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// breaking is a target whose first write breaks the queue: it starts more operations than
// the completion queue holds.
type breaking struct {
	ublk.Target
	broken *atomic.Bool
}

func (b breaking) NewHandler(q *ublk.Queue) (ublk.Handler, error) {
	h, err := b.Target.NewHandler(q)
	if err != nil {
		return nil, err
	}
	completer, ok := h.(ublk.Completer)
	if !ok {
		return nil, fmt.Errorf("a handler without Done: %T", h)
	}
	return breakingHandler{completer, b.broken, q.Depth()}, nil
}

type breakingHandler struct {
	ublk.Completer
	broken *atomic.Bool
	depth  int
}

func (b breakingHandler) Handle(req *ublk.Request) {
	if req.Op != ublk.OpWrite || b.broken.Swap(true) {
		b.Completer.Handle(req)
		return
	}
	for range 64 * b.depth {
		req.SQE().PrepNop()
	}
}

// A queue that fails leaves a recoverable device in the same state as a crash: its
// request waits, and the next server carries it out.
func TestKernelFailedQueueLeavesTheDevice(t *testing.T) {
	ctl := ublktest.Kernel(t, ublktest.EveryKernel)
	path := sparseFile(t, mountTmpfs(t))
	file := openPath(t, path)
	cfg := Config{OnCrash: CrashReissue, DirectIO: SwitchOff, ZeroCopy: SwitchOff}
	b, err := openBacking(file, &cfg)
	if err != nil {
		t.Fatal(err)
	}
	d := &Device{b: b, storage: b}
	if d.dev, _, err = addDevice(ctl, b, &cfg, nil); err != nil {
		t.Fatal(err)
	}
	id := d.ID()
	t.Cleanup(func() { _ = Detach(ctl, id, DetachOptions{Force: true}) }) // a failed test must not make the next one fail
	if err := d.start(&cfg, breaking{&target.Target{Backing: b}, new(atomic.Bool)}); err != nil {
		t.Fatal(err)
	}
	disk := openFile(t, d.Path(), os.O_RDWR|unix.O_DIRECT)
	page := alignedMemory(t, 4096)
	page[0] = 42
	wrote := make(chan error, 1)
	go func() { // until the device is recovered; received below
		_, err := disk.WriteAt(page, 0)
		wrote <- err
	}()
	<-d.Done()
	if d.Err() == nil {
		t.Error("the device has ended without an error")
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	waitQuiesced(t, ctl, id) // this process, the server, has not ended
	_, was := blockOf(id)
	was--
	if _, err := Recover(ctl, id, file, RecoverOptions{DiskSequence: &was}); !errors.Is(err, errReplaced) {
		t.Fatalf("recover a device that had its id before: error %v, want that it is gone", err)
	}
	next, err := Recover(ctl, id, file, RecoverOptions{})
	if err != nil {
		t.Fatal(err)
	}
	checkRecovered(t, next)
	if err := <-wrote; err != nil {
		t.Errorf("the write that waited: %v", err)
	}
	got := make([]byte, 4096)
	if _, err := openFile(t, path, os.O_RDONLY).ReadAt(got, 0); err != nil || got[0] != 42 {
		t.Errorf("the file holds %d, error %v", got[0], err)
	}
	if err := disk.Close(); err != nil {
		t.Error(err)
	}
	if err := next.Close(); err != nil {
		t.Error(err)
	}
}

// checkRecovered checks that a device has a server again, and that its state says so.
func checkRecovered(t *testing.T, d *Device) {
	t.Helper()
	if d.isDone() {
		t.Fatalf("the recovered device has no server: %v", d.Err())
	}
	if saved, err := readState(d.ID()); err != nil || saved == nil || saved.Recovering {
		t.Errorf("the state after the recovery is %+v, error %v", saved, err)
	}
}

// waitQuiesced waits until the driver has noticed that a device has no server, which
// causes no event.
func waitQuiesced(t *testing.T, ctl *ublk.Control, id uint32) {
	t.Helper()
	ublktest.Until(t, 40*time.Second, fmt.Sprintf("device %d, quiesced", id), func() bool {
		info, err := ctl.Info(id)
		if err != nil {
			t.Fatal(err)
		}
		return info.State == ublk.StateQuiesced
	})
}

// A recovery has not begun until the driver has noticed the end of the last server. If it
// is killed before that, the device can still be recovered.
func TestKernelRecoverMarksNothingTooEarly(t *testing.T) {
	ublktest.Kernel(t) // for the state directory, which all processes share
	fake := &ublktest.Fake{Offers: uapi.UBLK_F_CMD_IOCTL_ENCODE | uapi.UBLK_F_USER_RECOVERY | uapi.UBLK_F_USER_RECOVERY_REISSUE}
	ctl := ublk.NewControl(fake)
	file := openPath(t, sparseFile(t, t.TempDir()))
	cfg := Config{OnCrash: CrashReissue, ZeroCopy: SwitchOff}
	b, err := openBacking(file, &cfg)
	if err != nil {
		t.Fatal(err)
	}
	d := &Device{b: b, storage: b}
	if d.dev, _, err = addDevice(ctl, b, &cfg, nil); err != nil {
		t.Fatal(err)
	}
	id := d.ID()
	if err := describeAsOfAnother(d, &cfg); err != nil {
		t.Fatal(err)
	}
	fake.Set(id, ublk.StateLive, 1)
	recovered := make(chan error)
	go func() { // until the device is gone; received below
		_, err := Recover(ctl, id, file, RecoverOptions{})
		recovered <- err
	}()
	before := len(fake.Commands())
	waitUntil(t, "a wait for the driver", func() bool { return len(fake.Commands()) > before+10 })
	if saved, err := readState(id); err != nil || saved == nil || saved.Recovering {
		t.Errorf("it is said to be recovered: %+v, error %v", saved, err)
	}
	if err := ctl.Delete(id); err != nil {
		t.Error(err)
	}
	if err := <-recovered; err == nil {
		t.Error("a device that is gone was recovered")
	}
	if err := statefile.Remove(id); err != nil {
		t.Error(err)
	}
}

// describeAsOfAnother gives a device its parameters, and the state of a device whose
// server has ended. The file is not locked.
func describeAsOfAnother(d *Device, cfg *Config) error {
	params, err := d.b.Params(d.dev.Mode(), d.dev.Info().MaxIOBytes)
	if err != nil {
		return err
	}
	d.status = d.describe(cfg)
	d.status.PID = 0
	saved := state{FileBirth: d.b.Identity.Birth, FileDisk: d.b.Identity.Disk, Config: *cfg, Status: &d.status}
	return errors.Join(d.dev.SetParams(params), saved.write(), d.b.Close())
}
