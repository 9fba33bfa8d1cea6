package mountpoint

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

func TestIs(t *testing.T) {
	// /proc is a mount wherever tests run, and its directories are none.
	for path, want := range map[string]bool{"/proc": true, "/proc/self": false, t.TempDir(): false} {
		if is, err := Is(path); err != nil || is != want {
			t.Errorf("%s: %v, error %v, want %v", path, is, err, want)
		}
	}
	if _, err := Is("/proc/nothing"); !errors.Is(err, unix.ENOENT) {
		t.Errorf("error %v, want ENOENT", err)
	}
}
