package daemon

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

// A process that starts while another program is to replace this one inherits none of the program's files.
func TestExecutePassesNothingToOthers(t *testing.T) {
	file, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	l := &launch{role: manyRole, files: descriptors{logFile: file}, task: func([]string) any { return nil }}
	over, ended := make(chan struct{}), make(chan error)
	go func() { // until over is closed; its error is received below
		for {
			select {
			case <-over:
				ended <- nil
				return
			default:
			}
			if err := l.execute("/no/such/program", nil); !errors.Is(err, unix.ENOENT) {
				ended <- err
				return
			}
		}
	}()
	for range 200 {
		if exec.Command("test", "-e", fmt.Sprintf("/proc/self/fd/%d", file.Fd())).Run() == nil {
			t.Error("a process has inherited the file")
			break
		}
	}
	close(over)
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
