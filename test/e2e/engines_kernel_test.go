package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// enginesMount is the mount point of the disk with container engines (vm-engines.sh).
const enginesMount = "/vm/engines"

// engines mounts the disk with container engines, and returns the directory of the
// programs. The test needs ublktest.Engines.
func engines(t testing.TB) string {
	t.Helper()
	disk := os.Getenv("UBLK_LOOP_ENGINES")
	if _, err := os.Stat(enginesMount + "/bin"); err == nil {
		return enginesMount + "/bin"
	}
	if err := os.MkdirAll(enginesMount, 0o755); err != nil {
		t.Fatal(err)
	}
	// The mount stays until the machine ends.
	if err := unix.Mount(disk, enginesMount, "erofs", unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	return enginesMount + "/bin"
}

// moreRuntimes returns the other versions of the runtimes.
func moreRuntimes(t testing.TB) []string {
	t.Helper()
	dir := engines(t)
	programs, _ := filepath.Glob(dir + "/[rc]*un*-*")
	if len(programs) == 0 {
		t.Fatalf("no runtimes in %s", dir)
	}
	slices.Sort(programs)
	return programs
}
