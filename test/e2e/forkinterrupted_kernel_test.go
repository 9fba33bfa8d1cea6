package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// A fork that is interrupted while its server works on it waits for the answer. It succeeds if the
// device has forked, and makes no second device.
func TestKernelForkInterrupted(t *testing.T) {
	b := kernelBed(t, ublktest.OldestKernel)
	dir := b.mountTmpfs("size=64m")
	store := func(name string) string { return filepath.Join(dir, name) }
	device := b.add(b.imageIn(dir, 1<<20), "--cow", store("old"))
	for i, sig := range []unix.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT} {
		one := store(fmt.Sprint("one", i))
		out, errOut, err := b.interruptFork(sig, &device, one)
		if err != nil || out != device.Device+"\n" {
			t.Errorf("%v: the fork prints %q, %q and ends with %v", sig, out, errOut, err)
		}
		two, other := store(fmt.Sprint("two", i)), store(fmt.Sprint("other", i))
		out, errOut, err = b.interruptFork(sig, &device, two, other)
		if err == nil || out != "" || !strings.Contains(errOut, "it has forked, but no second device was made: interrupted\n") {
			t.Errorf("%v: the fork with a second device prints %q, %q and ends with %v", sig, out, errOut, err)
		}
		want := []string{filepath.Base(one), filepath.Base(two)}
		names := b.names(dir)
		there := func(name string) bool { return slices.Contains(names, name) }
		if files := len(b.list(device.Device)[0].Files); files != 4+2*i || !there(want[0]) || !there(want[1]) || there(filepath.Base(other)) {
			t.Errorf("%v: the device has %d files; there is %q", sig, files, names)
		}
	}
	b.del(device.Device)
}

// interruptFork interrupts a fork whose request the stopped server of the device has, and lets the
// server go on when the command has said that it waits.
func (b *bed) interruptFork(sig unix.Signal, device *client.Device, stores ...string) (out, errOut string, err error) {
	b.Helper()
	signal := func(pid int, sig unix.Signal) {
		if err := unix.Kill(pid, sig); err != nil {
			b.Fatal(err)
		}
	}
	said := filepath.Join(b.TempDir(), "said")
	file, err := os.Create(said)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	text := func() string {
		text, err := os.ReadFile(said)
		if err != nil {
			b.Fatal(err)
		}
		return string(text)
	}
	signal(device.PID, unix.SIGSTOP)
	defer signal(device.PID, unix.SIGCONT) // also after a failure
	cmd := b.command(append([]string{"fork", device.Device}, stores...)...)
	var printed strings.Builder
	cmd.Stdout, cmd.Stderr = &printed, file
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	waitUntil(b, "a connection to the server", func() bool { return hasSocket(cmd) })
	signal(cmd.Process.Pid, sig)
	waitUntil(b, "the word that it waits", func() bool { return strings.Contains(text(), "waits for its answer") })
	signal(device.PID, unix.SIGCONT)
	err = cmd.Wait()
	return printed.String(), text(), err
}

// hasSocket reports whether a command has a socket.
func hasSocket(cmd *exec.Cmd) bool {
	links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", cmd.Process.Pid))
	if err != nil {
		return false
	}
	return slices.ContainsFunc(links, func(link string) bool {
		target, err := os.Readlink(link)
		return err == nil && strings.HasPrefix(target, "socket:")
	})
}
