package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// A command that runs this long is likely to hang. It is less than the time after which del --force kills a server
// that completes no request, since a dead server shows nothing.
const likelyHangs = 8 * time.Second

// watch logs what servers do when a command hangs, until the result is called. A test shows its log only if it fails.
func (b *bed) watch() (stop func()) {
	b.Helper()
	ended, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		select {
		case <-ended:
		case <-time.After(likelyHangs):
			ublktest.Detail(b, "a command has run for %v", likelyHangs)
			ublktest.Detail(b, "%s", whereThreadsAre(b))
		}
	}()
	return func() {
		close(ended)
		<-stopped
	}
}

// whereThreadsAre describes where in the kernel the threads of all servers are, and the requests of their devices.
func whereThreadsAre(t testing.TB) string {
	t.Helper()
	var lines []string
	for _, pid := range processesOf(t, serverRole, manyRole, apartRole, apartManyRole) {
		threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
		for _, thread := range threads {
			lines = append(lines, contents(thread+"/comm", thread+"/wchan", thread+"/syscall", thread+"/stack"))
		}
	}
	for _, pattern := range []string{"/sys/block/ublkb*/inflight", "/sys/block/ublkb*/stat", "/sys/kernel/debug/block/ublkb*/hctx*/busy"} {
		paths, _ := filepath.Glob(pattern)
		for _, path := range paths {
			lines = append(lines, contents(path))
		}
	}
	return strings.Join(lines, "\n")
}

// contents returns the contents of small files in one line, after the name of the first one.
func contents(paths ...string) string {
	text := paths[0] + ":"
	for _, path := range paths {
		content, err := os.ReadFile(path)
		if err != nil {
			content = []byte(err.Error()) // what it describes has ended
		}
		text += " " + strings.Join(strings.Fields(string(content)), " ")
	}
	return text
}

// What is logged of a hang shows the server that is stopped, and its request.
func TestKernelHangIsShown(t *testing.T) {
	b := kernelBed(t, ublktest.Once, ublktest.Machine)
	s := b.add(b.image(1 << 20))
	b.suspend(s)
	text := whereThreadsAre(b)
	for _, pid := range b.processes(s) {
		if want := fmt.Sprintf("/proc/%d/task/%d/comm: ublk-loop do_signal_stop", pid, pid); !strings.Contains(text, want) {
			t.Errorf("it lacks %q:\n%s", want, text)
		}
		if err := unix.Kill(pid, unix.SIGCONT); err != nil {
			t.Fatal(err)
		}
	}
	if want := "/sys/block/" + filepath.Base(s.Device) + "/inflight: 0 0"; !strings.Contains(text, want) {
		t.Errorf("it lacks %q:\n%s", want, text)
	}
	b.del(s.Device)
}
