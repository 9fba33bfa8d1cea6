package loop

import (
	"errors"
	"os"
	"testing"

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
	var told []Identity
	s := NewServer(ctl, ServerOptions{StopUnused: func(devices ...Identity) error {
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
	for _, device := range append(told, was.dev.identity()) {
		if err := StopUnused(ctl, device); err != nil {
			t.Error(err)
		}
	}
	if info, err := ctl.Info(id); err != nil || info.State != ublk.StateLive {
		t.Fatalf("the next device with its id: state %v, error %v", info.State, err)
	}
	if err := StopUnused(ctl, is.dev.identity()); err != nil {
		t.Fatal(err)
	}
	<-is.gone
	if _, err := os.Stat(ublk.BlockPath(id)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s: %v", ublk.BlockPath(id), err)
	}
}
