package loop

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// A device that is on its way when its server ends has left nothing when that
// has: the process ends next.
func TestKernelShutdownWaitsForAdds(t *testing.T) {
	ctl := ublktest.Kernel(t)
	path := sparseFile(t, t.TempDir())
	for range 10 {
		s := NewServer(ctl, ServerOptions{})
		added := make(chan error, 1)
		go func() {
			_, err := s.Add(openPath(t, path), Config{})
			added <- err
		}()
		waitUntil(t, "the device is on its way", func() bool { return len(traces(t)) > 0 })
		if err := s.Shutdown(); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		if left := traces(t); len(left) > 0 {
			t.Errorf("left behind: %q", left)
		}
		if err := <-added; err != nil && !errors.Is(err, ublk.ErrClosed) {
			t.Errorf("add: %v", err)
		}
		if _, err := s.Add(openPath(t, path), Config{}); !errors.Is(err, ublk.ErrClosed) {
			t.Errorf("add after shutdown: error %v", err)
		}
	}
}

// traces are the files that there are of devices.
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
