package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
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

// suiteFiles returns the directory of a suite, and the names of its tests. pattern matches their
// files in the directory, of which there are want.
func suiteFiles(t testing.TB, suite, pattern string, want int) (dir string, names []string) {
	t.Helper()
	ublktest.Require(t, ublktest.Suites, ublktest.Long, ublktest.Once)
	dir = filepath.Join(suites(t), suite)
	files, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil || len(files) != want {
		t.Fatalf("%d files, error %v, want %d", len(files), err, want)
	}
	for _, f := range files {
		name := filepath.Base(f)
		names = append(names, name[:len(name)-len(filepath.Ext(pattern))])
	}
	return dir, names
}

// inMountNamespace returns a command in a mount namespace of its own. A container without one
// mounts in that of the command.
func inMountNamespace(ctx context.Context, program string, args ...string) *exec.Cmd {
	inNew := []string{"--mount", "sh", "-c", `mount --make-rshared / && exec "$@"`, "sh", program}
	return exec.CommandContext(ctx, "unshare", append(inNew, args...)...)
}
