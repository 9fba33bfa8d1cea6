package e2e

import (
	"bytes"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// An add that is killed, whenever that is, leaves nothing, unless it has
// printed the path: then whoever reads it knows.
func TestKernelAddKilled(t *testing.T) {
	b := kernelBed(t, ublktest.Soak)
	file := b.image(1 << 20)
	before := things(t)
	whole := b.timeOfAdd(file)
	times, least, most := kills(t)
	ublktest.UntilHit(t, "kill before the path is printed", times, least, most, func(i int) bool {
		sig := []syscall.Signal{unix.SIGKILL, unix.SIGINT, unix.SIGTERM, unix.SIGHUP}[i%4]
		out := b.kill(file, sig, ublktest.Moment(whole, i))
		if out != "" {
			b.del(file)
		}
		// Who is killed cannot wait for the server, which ends by itself.
		waitUntil(t, "the end of the servers", func() bool { return len(servers(t)) == 0 })
		b.nothingSince(before)
		return out == ""
	})
}

// timeOfAdd returns how long an add takes that finds all in memory.
func (b *bed) timeOfAdd(file string) time.Duration {
	b.Helper()
	least := time.Hour
	for range 3 {
		r := b.run("add", file)
		r.succeeds(b)
		least = min(least, r.took)
		b.del(file)
	}
	return least
}

// kill starts an add in a process group of its own, kills all of that a while
// later, and returns what it printed.
func (b *bed) kill(file string, sig syscall.Signal, after time.Duration) string {
	b.Helper()
	var out bytes.Buffer
	cmd := b.command("add", file)
	cmd.Stdout = &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	time.Sleep(after)
	_ = syscall.Kill(-cmd.Process.Pid, sig)
	_ = cmd.Wait()
	return out.String()
}

// An interrupted add is back when all is gone, and says what it was about.
func TestKernelAddInterrupted(t *testing.T) {
	b := kernelBed(t, ublktest.Soak)
	file := b.image(1 << 20)
	before := things(t)
	whole := b.timeOfAdd(file)
	times, least, most := kills(t)
	ublktest.UntilHit(t, "interrupt before add is done", times, least, most, func(i int) bool {
		hit := b.interruptAdd(file, ublktest.Moment(whole, i))
		b.nothingSince(before)
		return hit
	})
}

// interruptAdd interrupts an add some time after it has a server, removes the
// device if add was done by then, and reports whether it was not.
func (b *bed) interruptAdd(file string, after time.Duration) (hit bool) {
	b.Helper()
	cmd := b.command("add", file)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	waitUntil(b, "a server", func() bool { return len(servers(b)) > 0 })
	time.Sleep(after)
	_ = cmd.Process.Signal(unix.SIGINT)
	err := cmd.Wait()
	switch {
	case err == nil:
		b.del(file)
	case cmd.ProcessState.ExitCode() == 1:
		if want := "ublk-loop: error: attach " + file + ": interrupted\n"; errOut.String() != want || out.Len() > 0 {
			b.Errorf("it prints %q, %q", &out, &errOut)
		}
		return true
	case out.Len() > 0:
		b.del(file) // after all was said and done
	default:
		b.Errorf("it ends with %v\n%s", err, &errOut)
	}
	return false
}

// A server that dies while add waits for it is an error, and what it has made
// is removed.
func TestKernelServerKilledInAdd(t *testing.T) {
	b := kernelBed(t, ublktest.Soak)
	file := b.image(1 << 20)
	before := things(t)
	whole := b.timeOfAdd(file)
	times, least, most := kills(t)
	ublktest.UntilHit(t, "kill of a server that add waits for", times, least, most, func(i int) bool {
		hit := b.killServerOfAdd(file, ublktest.Moment(whole, i))
		b.nothingSince(before)
		return hit
	})
}

// killServerOfAdd kills the server of an add some time after it has come, removes
// the device if add was done by then, and reports whether it was not.
func (b *bed) killServerOfAdd(file string, after time.Duration) (hit bool) {
	b.Helper()
	cmd := b.command("add", file)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	var pids []int
	waitUntil(b, "a server", func() bool { pids = servers(b); return len(pids) > 0 })
	time.Sleep(after)
	_ = unix.Kill(pids[0], unix.SIGKILL)
	if err := cmd.Wait(); err == nil {
		b.del(file)
		return false
	}
	if want := "ublk-loop: error: attach " + file + ": "; !strings.HasPrefix(errOut.String(), want) {
		b.Errorf("it prints %q, %q", &out, &errOut)
	}
	return true
}

// Adds and dels that run at the same time do not get in each other's way.
func TestKernelParallel(t *testing.T) {
	b := kernelBed(t)
	before := things(t)
	const parallel = 4
	results := make(chan string)
	for range parallel {
		file := b.image(1 << 20)
		go func() {
			var failed []string
			for range 5 {
				for _, command := range []string{"add", "del"} {
					out, err := exec.Command(b.bin, command, file).CombinedOutput()
					if err != nil {
						failed = append(failed, command+": "+string(out))
					}
				}
			}
			results <- strings.Join(failed, "")
		}()
	}
	for range parallel {
		if failed := <-results; failed != "" {
			t.Error(failed)
		}
	}
	b.nothingSince(before)
}

// kills returns how often a test kills something at least, how many of the tries
// have to come in time, and after how many it gives up.
func kills(t testing.TB) (times, least, most int) {
	t.Helper()
	times = ublktest.Kills(t, 8, 16)
	return times, times / 2, 8 * times
}
