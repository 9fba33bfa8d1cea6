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

// addTo adds a device of a file to a server, with an id or, for nil, any.
func addTo(t *testing.T, s *Server, path string, id *uint32) (*served, uint32) {
	t.Helper()
	file := openPath(t, path)
	defer func() { _ = file.Close() }()
	status, err := s.Add(file, Config{ID: id, Autoclear: true})
	if err != nil {
		t.Fatal(err)
	}
	d, err := s.find(status.ID)
	if err != nil {
		t.Fatal(err)
	}
	return d, status.ID
}

// A look at a device that has ended meanwhile, or a stop of it, does nothing to
// the next device with its id.
func TestKernelLookAtADeviceThatWasReplaced(t *testing.T) {
	ctl := ublktest.Kernel(t)
	// As if another process were slow: what it is told to stop it does after this.
	var told []TaggedID
	s := NewServer(ctl, ServerOptions{StopUnused: func(devices ...TaggedID) error {
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

// lookingServer is a server that looks by itself whether devices are in use, and
// how often it has looked.
func lookingServer(t *testing.T, ctl *ublk.Control) (*Server, *atomic.Int32) {
	t.Helper()
	looks := new(atomic.Int32)
	s := NewServer(ctl, ServerOptions{
		StopUnused: func(devices ...TaggedID) error {
			for _, device := range devices {
				_ = StopUnused(ctl, device) // in use: the next look tells
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

// looksFor reports whether a server looks for the end of any device's use.
func (r *reaper) looksFor() bool {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	return r.runs
}

// A device whose holder has gone can be kept while it is in use, and nobody looks
// at it any more.
func TestKernelKeepAfterRelease(t *testing.T) {
	ctl := ublktest.Kernel(t)
	path := sparseFile(t, mountTmpfs(t))
	s, looks := lookingServer(t, ctl)
	d, id := addTo(t, s, path, nil)
	user, err := os.Open(d.dev.Path())
	if err != nil {
		t.Fatal(err)
	}
	s.Release(id)
	waitUntil(t, "a look at a device in use", func() bool { return looks.Load() > 1 })
	s.beginKeep(d)
	waitUntil(t, "no looks during a Keep", func() bool { return !s.reap.looksFor() })
	s.endKeep(d, unix.ENODEV)
	waitUntil(t, "looks after a Keep that fails", s.reap.looksFor)
	if err := s.Keep(id); err != nil {
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
	s.Release(id) // that of a holder who has kept it
	if s.reap.looksFor() {
		t.Error("it is looked at again")
	}
}

// A device that has lost its disk is not kept, nor is one that has ended.
func TestKernelKeepOfWhatIsRemoved(t *testing.T) {
	ctl := ublktest.Kernel(t)
	path := sparseFile(t, mountTmpfs(t))
	s, _ := lookingServer(t, ctl)
	d, id := addTo(t, s, path, nil)
	lock, err := statefile.Acquire(id) // with it nothing of the device is removed but the disk
	if err != nil {
		t.Fatal(err)
	}
	if err := ctl.Stop(id); err != nil {
		t.Error(err)
	}
	kept := make(chan error)
	go func() { kept <- s.Keep(id) }() // received below
	lock.Release()
	if err := <-kept; !errors.Is(err, unix.ENODEV) {
		t.Errorf("keep: error %v, want ENODEV", err)
	}
	if now := s.lifetime(d); now != leased {
		t.Errorf("it has lifetime %d, want %d as before", now, leased)
	}
	<-d.gone
	if err := d.dev.keep(); !errors.Is(err, unix.ENODEV) {
		t.Errorf("keep of one that has ended: error %v, want ENODEV", err)
	}
}

// Who keeps a device that another process looks at waits for what that does: it was
// told to stop the device before.
func TestKernelKeepWaitsForALook(t *testing.T) {
	var s *Server
	var d *served
	answer := make(chan error, 1)
	s = NewServer(ublktest.Kernel(t), ServerOptions{StopUnused: func(...TaggedID) error {
		go func() { answer <- s.Keep(d.dev.ID()) }() // received below
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
	d.lifetime = released // but the server itself does not look
	s.mu.Unlock()
	s.reap.ask([]*served{d})
	if err := <-answer; err != nil {
		t.Errorf("keep: %v", err)
	}
	if err := s.Shutdown(); err != nil {
		t.Error(err)
	}
}

// isKeeping reports whether a Keep of a device is under way.
func (s *Server) isKeeping(d *served) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return d.keeping > 0
}

// A holder that leaves while a Keep is under way leaves the device to the end of that:
// it is removed if the Keep fails, and stays if it succeeds.
func TestKernelReleaseDuringKeep(t *testing.T) {
	for name, stops := range map[string]int{"fails": 1, "succeeds": 0} {
		t.Run(name, func(t *testing.T) {
			ctl := ublktest.Kernel(t)
			path := sparseFile(t, mountTmpfs(t))
			s, _ := lookingServer(t, ctl)
			d, id := addTo(t, s, path, nil)
			lock, err := statefile.Acquire(id) // for which Keep waits
			if err != nil {
				t.Fatal(err)
			}
			answer := make(chan error, 1)
			go func() { answer <- s.Keep(id) }() // received below
			waitUntil(t, "Keep has begun", func() bool { return s.isKeeping(d) })
			s.Release(id)
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

// Two may keep a device at once. When one of them fails, the reaper still leaves the
// device alone for the other, and a success lasts.
func TestKernelKeepTwice(t *testing.T) {
	ctl := ublktest.Kernel(t)
	path := sparseFile(t, mountTmpfs(t))
	s, _ := lookingServer(t, ctl)
	d, id := addTo(t, s, path, nil)
	s.beginKeep(d) // the other
	s.Release(id)
	s.countStops(d, 1) // as if it were being stopped
	if err := s.Keep(id); !errors.Is(err, unix.ENODEV) {
		t.Errorf("keep: error %v, want ENODEV", err)
	}
	if s.reap.looksFor() {
		t.Error("it is looked at while it is being kept")
	}
	s.countStops(d, -1)
	s.endKeep(d, nil)
	s.countStops(d, 1)
	if err := s.Keep(id); !errors.Is(err, unix.ENODEV) {
		t.Errorf("keep again: error %v, want ENODEV", err)
	}
	if s.lifetime(d) != kept || s.isKeeping(d) || s.reap.looksFor() {
		t.Errorf("it has lifetime %d, want %d; it is looked at: %v", s.lifetime(d), kept, s.reap.looksFor())
	}
}

// A device that cannot be kept goes on as it was: released, it is looked at again.
func TestKernelKeepFails(t *testing.T) {
	ctl := ublktest.Kernel(t)
	path := sparseFile(t, mountTmpfs(t))
	s, _ := lookingServer(t, ctl)
	d, id := addTo(t, s, path, nil)
	s.mu.Lock()
	d.lifetime = released // but nobody looks
	d.stops = 1           // as if it were being stopped
	s.mu.Unlock()
	if err := s.Keep(id); !errors.Is(err, unix.ENODEV) {
		t.Errorf("keep: error %v, want ENODEV", err)
	}
	if now := s.lifetime(d); now != released {
		t.Errorf("it has lifetime %d, want %d as before", now, released)
	}
	waitClosed(t, "the end of a device that nobody uses", d.gone)
}

// A device that is kept while it is being looked at stays.
func TestKernelKeepDuringALook(t *testing.T) {
	ctl := ublktest.Kernel(t)
	path := sparseFile(t, mountTmpfs(t))
	s, _ := lookingServer(t, ctl)
	d, id := addTo(t, s, path, nil)
	if err := s.Keep(id); err != nil {
		t.Fatal(err)
	}
	s.reap.stop([]*served{d}) // as found before
	s.reap.ask([]*served{d})
	if info, err := ctl.Info(id); err != nil || info.State != ublk.StateLive {
		t.Errorf("it is in state %v, error %v", info.State, err)
	}
}
