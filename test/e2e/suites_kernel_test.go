package e2e

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// suitesMount is the mount point of the disk with test suites of others (vm-suites.sh).
const suitesMount = "/vm/suites"

// suites mounts the disk with test suites of others until the end of the test, and returns
// its directory. The test needs ublktest.Suites.
func suites(t testing.TB) string {
	t.Helper()
	if err := os.MkdirAll(suitesMount, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(os.Getenv("UBLK_LOOP_SUITES"), suitesMount, "erofs", unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(suitesMount, 0); err != nil {
			t.Error(err)
		}
	})
	return suitesMount
}
