package loop

import (
	"errors"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/loop/internal/statefile"
	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// addTo adds a device of a file to a server. A nil id stands for any id.
func addTo(t *testing.T, s *Server, path string, id *uint32) (*served, uint32) {
	t.Helper()
	file := openPath(t, path)
	defer func() { _ = file.Close() }()
	status, err := s.Add(file, Config{ID: id, Autoclear: true})
	if err != nil {
		t.Fatal(err)
	}
	d, err := s.find(status.ID, nil)
	if err != nil {
		t.Fatal(err)
	}
	return d, status.ID
}

// If a device has ended during a check or a stop, the next device with its id is not
// affected.
func TestKernelLookAtADeviceThatWasReplaced(t *testing.T) {
	ctl := ublktest.Kernel(t)
	// This acts as a slow process: it stops the devices later.
	var told []TaggedID
	s := NewServer(ctl, ServerOptions{StopUnused: func(_ func(TaggedID, error), devices ...TaggedID) error {
		told = append(told, devices...)
		return nil
	}})
	defer func() {
		if err := s.Shutdown(); err != nil {
			t.Error(err)
		}
	}()
	dir := mountTmpfs(t)
	was, id := addTo(t, s, sparseFile(t, dir), nil)
	if err := s.Remove(id, DetachOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	is, _ := addTo(t, s, sparseFile(t, dir), &id)
	s.reap.stop([]*served{was})
	if err := s.stop(was, false); err != nil {
		t.Error(err)
	}
	if err := s.stop(was, true); err != nil {
		t.Error(err)
	}
	for _, device := range append(told, was.dev.taggedID()) {
		if err := StopUnused(ctl, device); err != nil {
			t.Error(err)
		}
	}
	if info, err := ctl.Info(id); err != nil || info.State != ublk.StateLive {
		t.Fatalf("the next device with its id: state %v, error %v", info.State, err)
	}
	if err := StopUnused(ctl, is.dev.taggedID()); err != nil {
		t.Fatal(err)
	}
	<-is.gone
	if _, err := os.Stat(ublk.BlockPath(id)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s: %v", ublk.BlockPath(id), err)
	}
}

// lookingServer returns a server that itself checks whether devices are in use, and the
// number of its checks.
func lookingServer(t *testing.T, ctl *ublk.Control) (*Server, *atomic.Int32) {
	t.Helper()
	looks := new(atomic.Int32)
	s := NewServer(ctl, ServerOptions{
		StopUnused: func(_ func(TaggedID, error), devices ...TaggedID) error {
			for _, device := range devices {
				_ = StopUnused(ctl, device) // in use: the next check will tell
			}
			return nil
		},
		Checked: func() { looks.Add(1) },
	})
	t.Cleanup(func() {
		if err := s.Shutdown(); err != nil {
			t.Error(err)
		}
	})
	return s, looks
}

// looksFor reports whether the reaper runs.
func (r *reaper) looksFor() bool {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	return r.runs
}

// A device whose holder has gone can be kept while it is in use. The server then no
// longer checks it.
func TestKernelKeepAfterRelease(t *testing.T) {
	ctl := ublktest.Kernel(t)
	path := sparseFile(t, mountTmpfs(t))
	s, looks := lookingServer(t, ctl)
	d, id := addTo(t, s, path, nil)
	user, err := os.Open(d.dev.Path())
	if err != nil {
		t.Fatal(err)
	}
	s.Release(id, nil)
	waitUntil(t, "a look at a device in use", func() bool { return looks.Load() > 1 })
	s.beginKeep(d)
	waitUntil(t, "no looks during a Keep", func() bool { return !s.reap.looksFor() })
	s.endKeep(d, unix.ENODEV)
	waitUntil(t, "looks after a Keep that fails", s.reap.looksFor)
	if err := s.Keep(id, nil); err != nil {
		t.Error(err)
	}
	if err := user.Close(); err != nil {
		t.Error(err)
	}
	waitUntil(t, "no more looks", func() bool { return !s.reap.looksFor() })
	if list := s.Devices(); d.dev.isDone() || len(list) != 1 || list[0].Autoclear {
		t.Errorf("it has been removed: %v; the server has %+v", d.dev.isDone(), list)
	}
	if saved, err := readState(id); err != nil || saved == nil || saved.Config.Autoclear {
		t.Errorf("it has the state %+v, error %v", saved, err)
	}
	s.Release(id, nil) // the release by a holder that has kept the device
	if s.reap.looksFor() {
		t.Error("it is looked at again")
	}
}

// A device that is cleared goes with its last user, unless it is kept again before.
func TestKernelClear(t *testing.T) {
	ctl := ublktest.Kernel(t)
	s, _ := lookingServer(t, ctl)
	d, id := addTo(t, s, sparseFile(t, mountTmpfs(t)), nil)
	if err := errors.Join(s.Clear(id, nil), s.Keep(id, nil)); err != nil { // a leased device needs no Clear
		t.Fatal(err)
	}
	if list := s.Devices(); len(list) != 1 || list[0].Autoclear {
		t.Errorf("a kept device is %+v", list)
	}
	user, err := os.Open(d.dev.Path())
	if err != nil {
		t.Fatal(err)
	}
	other := d.sequence + 1
	for _, err := range []error{s.Clear(id, &other), s.Clear(id+1, nil)} {
		if !errors.Is(err, unix.ENODEV) {
			t.Errorf("of a device that is gone: error %v", err)
		}
	}
	if err := errors.Join(s.Clear(id, nil), s.Clear(id, &d.sequence)); err != nil {
		t.Fatal(err)
	}
	if saved, err := readState(id); err != nil || !saved.Config.Autoclear || !saved.Status.Autoclear {
		t.Errorf("a cleared device has the state %+v, error %v", saved, err)
	}
	if !s.reap.looksFor() || s.lifetime(d) != released {
		t.Error("a cleared device is not looked at")
	}
	if err := s.Keep(id, nil); err != nil {
		t.Error(err)
	}
	waitUntil(t, "no more looks", func() bool { return !s.reap.looksFor() })
	if err := s.Clear(id, nil); err != nil {
		t.Error(err)
	}
	if d.dev.isDone() {
		t.Error("a device in use has been removed")
	}
	if err := user.Close(); err != nil {
		t.Error(err)
	}
	waitUntil(t, "the device goes with its last user", func() bool { return s.Len() == 0 })
}

// A device that has lost its disk, or has ended, cannot be kept.
func TestKernelKeepOfWhatIsRemoved(t *testing.T) {
	ctl := ublktest.Kernel(t)
	path := sparseFile(t, mountTmpfs(t))
	s, _ := lookingServer(t, ctl)
	d, id := addTo(t, s, path, nil)
	lock, err := statefile.Acquire(id) // with the lock held, only the device's disk is removed
	if err != nil {
		t.Fatal(err)
	}
	if err := ctl.Stop(id); err != nil {
		t.Error(err)
	}
	kept := make(chan error)
	go func() { kept <- s.Keep(id, nil) }() // received below
	lock.Release()
	if err := <-kept; !errors.Is(err, unix.ENODEV) {
		t.Errorf("keep: error %v, want ENODEV", err)
	}
	if now := s.lifetime(d); now != leased {
		t.Errorf("it has lifetime %d, want %d as before", now, leased)
	}
	<-d.gone
	if err := d.dev.setAutoclear(false); !errors.Is(err, unix.ENODEV) {
		t.Errorf("keep of one that has ended: error %v, want ENODEV", err)
	}
}

// If another process is checking a device, Keep waits for the result, because that
// process was told to stop the device before.
func TestKernelKeepWaitsForALook(t *testing.T) {
	var s *Server
	var d *served
	answer := make(chan error, 1)
	s = NewServer(ublktest.Kernel(t), ServerOptions{StopUnused: func(func(TaggedID, error), ...TaggedID) error {
		go func() { answer <- s.Keep(d.dev.ID(), nil) }() // received below
		waitUntil(t, "Keep has begun", func() bool { return s.isKeeping(d) })
		select {
		case err := <-answer:
			t.Errorf("kept, with error %v, before the other process has answered", err)
		case <-time.After(200 * time.Millisecond):
		}
		return nil
	}})
	d, _ = addTo(t, s, sparseFile(t, mountTmpfs(t)), nil)
	s.mu.Lock()
	d.lifetime = released // but the server itself does not check
	s.mu.Unlock()
	s.reap.ask(s.reap.beginAsking([]*served{d}))
	if err := <-answer; err != nil {
		t.Errorf("keep: %v", err)
	}
	if err := s.Shutdown(); err != nil {
		t.Error(err)
	}
}

// isKeeping reports whether a Keep of a device is running.
func (s *Server) isKeeping(d *served) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return d.keeping > 0
}

// If the holder leaves while a Keep is running, the result of Keep decides: the device is
// removed if Keep fails, and stays if it succeeds.
func TestKernelReleaseDuringKeep(t *testing.T) {
	for name, stops := range map[string]int{"fails": 1, "succeeds": 0} {
		t.Run(name, func(t *testing.T) {
			ctl := ublktest.Kernel(t)
			path := sparseFile(t, mountTmpfs(t))
			s, _ := lookingServer(t, ctl)
			d, id := addTo(t, s, path, nil)
			lock, err := statefile.Acquire(id) // Keep waits for this lock
			if err != nil {
				t.Fatal(err)
			}
			answer := make(chan error, 1)
			go func() { answer <- s.Keep(id, nil) }() // received below
			waitUntil(t, "Keep has begun", func() bool { return s.isKeeping(d) })
			s.Release(id, nil)
			if s.reap.looksFor() {
				t.Error("it is looked at while it is being kept")
			}
			s.countStops(d, stops)
			lock.Release()
			if err := <-answer; (err != nil) != (stops > 0) {
				t.Errorf("keep: error %v", err)
			}
			if stops > 0 {
				waitClosed(t, "the end of a device that nobody uses", d.gone)
			} else if s.lifetime(d) != kept || s.reap.looksFor() {
				t.Errorf("it has lifetime %d, want %d; it is looked at: %v", s.lifetime(d), kept, s.reap.looksFor())
			}
		})
	}
}

// Two goroutines may keep a device at the same time. If one of them fails, the reaper
// still leaves the device to the other, and a success lasts.
func TestKernelKeepTwice(t *testing.T) {
	ctl := ublktest.Kernel(t)
	path := sparseFile(t, mountTmpfs(t))
	s, _ := lookingServer(t, ctl)
	d, id := addTo(t, s, path, nil)
	s.beginKeep(d) // the other goroutine
	s.Release(id, nil)
	s.countStops(d, 1) // as if it were being stopped
	if err := s.Keep(id, nil); !errors.Is(err, unix.ENODEV) {
		t.Errorf("keep: error %v, want ENODEV", err)
	}
	if s.reap.looksFor() {
		t.Error("it is looked at while it is being kept")
	}
	s.countStops(d, -1)
	s.endKeep(d, nil)
	s.countStops(d, 1)
	if err := s.Keep(id, nil); !errors.Is(err, unix.ENODEV) {
		t.Errorf("keep again: error %v, want ENODEV", err)
	}
	if s.lifetime(d) != kept || s.isKeeping(d) || s.reap.looksFor() {
		t.Errorf("it has lifetime %d, want %d; it is looked at: %v", s.lifetime(d), kept, s.reap.looksFor())
	}
}

// A failed Keep changes nothing: a released device is checked again.
func TestKernelKeepFails(t *testing.T) {
	ctl := ublktest.Kernel(t)
	path := sparseFile(t, mountTmpfs(t))
	s, _ := lookingServer(t, ctl)
	d, id := addTo(t, s, path, nil)
	s.mu.Lock()
	d.lifetime = released // but the reaper does not run
	d.stops = 1           // as if it were being stopped
	s.mu.Unlock()
	if err := s.Keep(id, nil); !errors.Is(err, unix.ENODEV) {
		t.Errorf("keep: error %v, want ENODEV", err)
	}
	if now := s.lifetime(d); now != released {
		t.Errorf("it has lifetime %d, want %d as before", now, released)
	}
	waitClosed(t, "the end of a device that nobody uses", d.gone)
}

// A device that is kept during a check stays.
func TestKernelKeepDuringALook(t *testing.T) {
	ctl := ublktest.Kernel(t)
	path := sparseFile(t, mountTmpfs(t))
	s, _ := lookingServer(t, ctl)
	d, id := addTo(t, s, path, nil)
	if err := s.Keep(id, nil); err != nil {
		t.Fatal(err)
	}
	s.reap.stop([]*served{d}) // due before the Keep
	if asked := s.reap.beginAsking([]*served{d}); len(asked) > 0 {
		t.Errorf("another process is asked to check %v", asked)
	}
	if info, err := ctl.Info(id); err != nil || info.State != ublk.StateLive {
		t.Errorf("it is in state %v, error %v", info.State, err)
	}
}

// While another process checks devices, the result for one does not wait for the others.
func TestKernelAskAnswersForEach(t *testing.T) {
	begun, release := make(chan struct{}), make(chan struct{})
	var silent TaggedID
	s := NewServer(ublktest.Kernel(t, ublktest.Waits), ServerOptions{StopUnused: func(ended func(TaggedID, error), devices ...TaggedID) error {
		for _, device := range devices {
			if device != silent {
				ended(device, ErrInUse)
			}
		}
		close(begun)
		<-release
		return nil
	}})
	dir := mountTmpfs(t)
	hangs, _ := addTo(t, s, sparseFile(t, dir), nil)
	other, id := addTo(t, s, sparseFile(t, t.TempDir()), nil)
	silent = hangs.dev.taggedID()
	s.mu.Lock()
	hangs.lifetime, other.lifetime = released, released // but the server itself does not check
	s.mu.Unlock()
	asked := make(chan struct{})
	go func() { s.reap.ask(s.reap.beginAsking([]*served{hangs, other})); close(asked) }() // received below
	<-begun
	if err := within(t, "keep", func() error { return s.Keep(id, nil) }); err != nil {
		t.Errorf("keep the device that is in use: %v", err)
	}
	s.reap.stop([]*served{hangs}) // it has a check
	if hangs.dev.isDone() {
		t.Error("a device is stopped that another process checks")
	}
	if err := s.Keep(hangs.dev.ID(), nil); !errors.Is(err, unix.EBUSY) {
		t.Errorf("keep the device that does not answer: error %v, want EBUSY", err)
	}
	close(release)
	<-asked
	if err := s.Keep(hangs.dev.ID(), nil); err != nil {
		t.Errorf("keep it after the check: %v", err)
	}
	if err := s.Shutdown(); err != nil {
		t.Error(err)
	}
}
