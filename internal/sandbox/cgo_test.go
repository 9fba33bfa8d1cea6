//go:build cgo

package sandbox

import (
	"errors"
	_ "runtime/cgo" // as in a program that is built with cgo, whose threads are not all Go's
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// With cgo, Go refuses a system call for all threads. The error says how to build the program.
func TestCgoIsNamed(t *testing.T) {
	if err := dropInheritable(); !errors.Is(err, unix.ENOTSUP) || !strings.Contains(err.Error(), "CGO_ENABLED=0") {
		t.Errorf("error %v", err)
	}
}
