package ublktest

import (
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// aloneTest is the environment variable with the name of the test that a process is for.
const aloneTest = "UBLK_LOOP_TEST_ALONE"

// Alone runs a test in a process of its own, which the test may change as it likes. It reports whether this is that
// process; otherwise the test has run, and returns. Files that package testing itself writes are in the other process.
func Alone(t *testing.T) bool {
	t.Helper()
	name := t.Name()
	if os.Getenv(aloneTest) == name {
		return true
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+name+"$", "-test.v")
	cmd.Env = append(os.Environ(), aloneTest+"="+name)
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: "+name+" ") {
		t.Errorf("alone: %v\n%s", err, out)
	}
	return false
}

// LimitFileSize makes writes behind a size fail with EFBIG in the whole process, until undo is called. The test must be
// alone.
func LimitFileSize(t *testing.T, size uint64) (undo func()) {
	t.Helper()
	if os.Getenv(aloneTest) != t.Name() {
		t.Fatal("not alone, so that files of package testing are limited too")
	}
	signal.Ignore(unix.SIGXFSZ)
	var was unix.Rlimit
	err := unix.Getrlimit(unix.RLIMIT_FSIZE, &was)
	if err == nil {
		err = unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: size, Max: was.Max})
	}
	if err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &was); err != nil {
			t.Fatal(err)
		}
	}
}
