package oci

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// A mount on one of an overlay's directories is refused, because the overlay must stay on
// the file system of the given directory. /proc is mounted on a directory of / wherever
// tests run.
func TestOpenWritableMounted(t *testing.T) {
	var root, proc unix.Stat_t
	if err := errors.Join(unix.Stat("/", &root), unix.Stat("/proc", &proc)); err != nil {
		t.Fatal(err)
	}
	if root.Dev == proc.Dev {
		t.Fatal("/proc is not mounted")
	}
	f, made, err := openOrMake(openPath(t, "/"), "proc")
	if !errors.Is(err, unix.EXDEV) || made {
		t.Errorf("error %v, made %v; want EXDEV", err, made)
	}
	if err == nil {
		_ = f.Close()
	}
}
