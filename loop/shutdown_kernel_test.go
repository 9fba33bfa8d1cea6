package loop

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/loop/internal/backing"
	"github.com/ublk-loop/ublk-loop/loop/internal/statefile"
	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/uapi"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// A device that is being made when its server shuts down is completely gone after the
// shutdown, because the process then ends.
func TestKernelShutdownWaitsForAdds(t *testing.T) {
	ctl := ublktest.Kernel(t, ublktest.Soak)
	path := sparseFile(t, t.TempDir())
	start := time.Now()
	s := NewServer(ctl, ServerOptions{})
	addTo(t, s, path, nil)
	whole := time.Since(start)
	if err := s.Shutdown(); err != nil {
		t.Fatal(err)
	}
	n := ublktest.Kills(t, 5, 5)
	ublktest.UntilHit(t, "shutdown in an add", n, n, 20*n, func(i int) bool {
		return shutDownInAdd(t, ctl, path, ublktest.Moment(whole, i))
	})
}

// shutDownInAdd shuts a server down some time after it began to add a device. It reports
// whether the add had made a part of the device but had not finished.
func shutDownInAdd(t *testing.T, ctl *ublk.Control, path string, after time.Duration) (hit bool) {
	t.Helper()
	s := NewServer(ctl, ServerOptions{})
	added := make(chan error, 1)
	go func() { // received below
		_, err := s.Add(openPath(t, path), Config{})
		added <- err
	}()
	time.Sleep(after)
	begun := len(traces(t)) > 0
	if err := s.Shutdown(); err != nil {
		t.Errorf("shutdown: %v", err)
	}
	if left := traces(t); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
	err := <-added
	if err != nil && !errors.Is(err, ublk.ErrClosed) {
		t.Errorf("add: %v", err)
	}
	if _, err := s.Add(openPath(t, path), Config{}); !errors.Is(err, ublk.ErrClosed) {
		t.Errorf("add after shutdown: error %v", err)
	}
	return begun && err != nil
}

// traces returns the files that devices leave.
func traces(t *testing.T) []string {
	t.Helper()
	var found []string
	for _, pattern := range []string{"/sys/class/ublk-char/*", "/run/ublk-loop/*.json"} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, paths...)
	}
	return found
}

// Shutdown does not wait for a check of one device before it removes the others.
func TestKernelShutdownDuringALook(t *testing.T) {
	s := NewServer(ublktest.Kernel(t), ServerOptions{})
	dir := mountTmpfs(t)
	looked, id := addTo(t, s, sparseFile(t, dir), nil)
	other, _ := addTo(t, s, sparseFile(t, t.TempDir()), nil)
	lock, err := statefile.Acquire(id) // a check waits for this lock
	if err != nil {
		t.Fatal(err)
	}
	s.Release(id, nil)
	waitUntil(t, "a look", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return looked.checks.pause > firstPause
	})
	ended := make(chan error, 1)
	go func() { ended <- s.Shutdown() }() // received below
	waitClosed(t, "the end of the other device", other.gone)
	lock.Release()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if s.reap.looksFor() {
		t.Error("it looks still")
	}
}

// Remove waits for the lock of the state longer than for a device that answers no request.
func TestKernelRemoveWaitsForTheLock(t *testing.T) {
	const patience = 2 * time.Second
	s := NewServer(ublktest.Kernel(t, ublktest.Waits), ServerOptions{Patience: patience})
	d, id := addTo(t, s, sparseFile(t, t.TempDir()), nil)
	lock, err := statefile.Acquire(id)
	if err != nil {
		t.Fatal(err)
	}
	removed := make(chan error, 1)
	go func() { removed <- s.Remove(id, DetachOptions{}) }() // received below
	waitUntil(t, "the wait for the lock", d.dev.awaitsLock)
	select {
	case err := <-removed:
		lock.Release()
		t.Fatalf("during another change of the device: error %v", err)
	case <-time.After(3 * patience / 2):
	}
	lock.Release()
	if err := within(t, "removal", func() error { return <-removed }); err != nil {
		t.Error(err)
	}
}

// Remove and Shutdown do not wait for a device that answers no request, and name it.
func TestKernelShutdownWithHungDisk(t *testing.T) {
	ctl := ublktest.Kernel(t, ublktest.Waits)
	disk := mappedDisk(t, "0 65536 linear "+nullDisk(t, 64, nil)+" 0")
	s := NewServer(ctl, ServerOptions{Patience: 2 * time.Second})
	hangs, err := s.Add(openPath(t, disk), Config{PartScan: true})
	if err != nil {
		t.Fatal(err)
	}
	d, err := s.find(hangs.ID, nil)
	if err != nil {
		t.Fatal(err)
	}
	other, _ := addTo(t, s, sparseFile(t, mountTmpfs(t)), nil)
	run(t, "dmsetup", "suspend", "--noflush", "--nolockfs", "--noudevsync", mappedName)
	scan := exec.Command("blockdev", "--rereadpt", hangs.Device) // has the lock that a stop waits for
	if err := scan.Start(); err != nil {
		t.Fatal(err)
	}
	waitInFlight(t, hangs.Device)
	err = within(t, "removal", func() error { return s.Remove(hangs.ID, DetachOptions{Force: true}) })
	if !errors.Is(err, unix.ETIMEDOUT) || !strings.Contains(err.Error(), hangs.Device) {
		t.Errorf("remove: error %v, want one that names %s", err, hangs.Device)
	}
	err = within(t, "shutdown", s.Shutdown)
	if !errors.Is(err, unix.ETIMEDOUT) || !strings.Contains(err.Error(), hangs.Device) || strings.Contains(err.Error(), other.dev.Path()) {
		t.Errorf("shutdown: error %v, want one that names %s", err, hangs.Device)
	}
	waitClosed(t, "the end of the other device", other.gone)
	run(t, "dmsetup", "resume", "--noudevsync", mappedName)
	_ = scan.Wait() // fails if the device has been removed
	waitClosed(t, "the end of the device when its disk is back", d.gone)
}

// Shutdown waits for a device that is slow, as long as it answers.
func TestKernelShutdownOfASlowDevice(t *testing.T) {
	ctl := ublktest.Kernel(t, ublktest.Waits)
	run(t, "modprobe", "dm-delay")
	below := nullDisk(t, 64, nil)
	disk := mappedDisk(t, fmt.Sprintf("0 65536 delay %s 0 0 %s 0 500", below, below))
	s := NewServer(ctl, ServerOptions{Patience: 2 * time.Second})
	slow, err := s.Add(openPath(t, disk), Config{Depth: 1, Queues: 1, MaxIOBytes: uint32(os.Getpagesize())})
	if err != nil {
		t.Fatal(err)
	}
	f := openFile(t, slow.Device, os.O_WRONLY)
	for i := range 10 { // half a second each
		if _, err := f.WriteAt(make([]byte, 4096), int64(i)<<20); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	if err := s.Shutdown(); err != nil {
		t.Errorf("shutdown: %v", err)
	}
	if took := time.Since(began); took < 3*time.Second {
		t.Errorf("ten writes of half a second were over after %v: the device was not slow", took)
	}
}

func waitClosed(t *testing.T, what string, done <-chan struct{}) {
	t.Helper()
	ublktest.Receive(t, 30*time.Second, what, done)
}

// holdingTransport delays a DEL_DEV until it is released.
type holdingTransport struct {
	ublktest.Fake
	deleting, release chan struct{}
}

func (h *holdingTransport) Do(cmd ublk.Command) error {
	if cmd.Op == uapi.UBLK_U_CMD_DEL_DEV {
		close(h.deleting)
		<-h.release
	}
	return h.Fake.Do(cmd)
}

// A device that is added while the server shuts down is removed, and its removal does not
// delay requests about other devices.
func TestKernelServerClosesAtLeisure(t *testing.T) {
	ublktest.Kernel(t) // for the state directory, which all processes share
	h := &holdingTransport{ublktest.Fake{Offers: uapi.UBLK_F_CMD_IOCTL_ENCODE}, make(chan struct{}), make(chan struct{})}
	ctl := ublk.NewControl(h)
	dev, err := ctl.Add(ublk.Options{Mode: ublk.BufferCopy})
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(ctl, ServerOptions{})
	s.close()
	taken := make(chan error, 1)
	go func() { // received below
		_, err := s.take(&Device{dev: dev, storage: &backing.Backing{FD: -1}}, false)
		taken <- err
	}()
	<-h.deleting
	counted := make(chan struct{})
	go func() { // until the devices are counted
		s.Len()
		close(counted)
	}()
	waitClosed(t, "the number of devices", counted)
	close(h.release)
	if err := <-taken; !errors.Is(err, ublk.ErrClosed) {
		t.Errorf("error %v, want ErrClosed", err)
	}
}

// A server does not recover its own device, because it would wait for itself.
func TestKernelServerRecoversNoneOfItsOwn(t *testing.T) {
	s := NewServer(ublktest.Kernel(t), ServerOptions{})
	defer func() {
		if err := s.Shutdown(); err != nil {
			t.Error(err)
		}
	}()
	path := sparseFile(t, mountTmpfs(t))
	status, err := s.Add(openPath(t, path), Config{OnCrash: CrashReissue})
	if err != nil {
		t.Fatal(err)
	}
	key := secretOf(t, testKey)
	if _, err := s.Recover(status.ID, openPath(t, path), RecoverOptions{Key: key}); !errors.Is(err, ErrServed) || key.Bytes() != nil {
		t.Errorf("error %v, want ErrServed; key closed: %v", err, key.Bytes() == nil)
	}
	if err := s.Remove(status.ID, DetachOptions{Force: true}); err != nil {
		t.Error(err)
	}
}

// If a device could not be stopped, the next Close tries again. Another process can remove what Close cannot delete.
func TestKernelCloseTriesAgain(t *testing.T) {
	ctl := ublktest.Kernel(t)
	own, err := ublk.OpenControl()
	if err != nil {
		t.Fatal(err)
	}
	file := openPath(t, sparseFile(t, mountTmpfs(t)))
	dev, err := attachOn(own, file, Config{}, newThreads(func(err error) { t.Error(err) }, servesNone), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := own.Close(); err != nil { // without it nothing can be stopped
		t.Error(err)
	}
	for range 2 {
		if err := dev.Close(); !errors.Is(err, ublk.ErrServed) {
			t.Errorf("error %v, want ErrServed", err)
		}
	}
	if err := ctl.Stop(dev.ID()); err != nil {
		t.Error(err)
	}
	<-dev.Done()
	if err := dev.Close(); !errors.Is(err, ublk.ErrClosed) {
		t.Errorf("of what is to be deleted: error %v, want ErrClosed", err)
	}
	if err := Detach(ctl, dev.ID(), DetachOptions{}); err != nil {
		t.Errorf("another process removes what is left: %v", err)
	}
	if err := dev.Close(); err != nil {
		t.Errorf("of what is gone: %v", err)
	}
}
