package main

import (
	"bytes"
	"math/rand/v2"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// killTimes is how often each of these tests kills something.
const killTimes = 16

// An add that is killed, whenever that is, leaves nothing, unless it has
// printed the path: then whoever reads it knows.
func TestKernelAddKilled(t *testing.T) {
	b := kernelBed(t)
	file := b.image(1 << 20)
	before := things(t)
	whole := b.timeOfAdd(file)
	printed := 0
	for i := range killTimes {
		sig := []syscall.Signal{unix.SIGKILL, unix.SIGINT, unix.SIGTERM, unix.SIGHUP}[i%4]
		out := b.kill(file, sig, rand.N(whole*5/4))
		if out != "" {
			printed++
			b.del(file)
		}
		// Who is killed cannot wait for the server, which ends by itself.
		waitUntil(t, "the end of the servers", func() bool { return len(servers(t)) == 0 })
		b.nothingSince(before)
	}
	t.Logf("killed %d times within %v, %d times the path was printed before", killTimes, whole*5/4, printed)
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
	b := kernelBed(t)
	file := b.image(1 << 20)
	before := things(t)
	whole := b.timeOfAdd(file)
	interrupted := 0
	for range killTimes {
		cmd := b.command("add", file)
		var out, errOut bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &errOut
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// It can be interrupted from the time on when it has a server.
		waitUntil(t, "a server", func() bool { return len(servers(t)) > 0 || errOut.Len() > 0 })
		time.Sleep(rand.N(whole))
		_ = cmd.Process.Signal(unix.SIGINT)
		err := cmd.Wait()
		switch {
		case err == nil:
			b.del(file)
		case cmd.ProcessState.ExitCode() == 1:
			interrupted++
			if want := "ublk-loop: error: attach " + file + ": interrupted\n"; errOut.String() != want || out.Len() > 0 {
				t.Errorf("it prints %q, %q", &out, &errOut)
			}
		case out.Len() > 0:
			b.del(file) // after all was said and done
		default:
			t.Errorf("it ends with %v\n%s", err, &errOut)
		}
		b.nothingSince(before)
	}
	t.Logf("%d of %d were interrupted", interrupted, killTimes)
}

// A server that dies while add waits for it is an error, and what it has made
// is removed.
func TestKernelServerKilledInAdd(t *testing.T) {
	b := kernelBed(t)
	file := b.image(1 << 20)
	before := things(t)
	whole := b.timeOfAdd(file)
	failed := 0
	for range killTimes {
		cmd := b.command("add", file)
		var out, errOut bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &errOut
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var pids []int
		waitUntil(t, "a server", func() bool { pids = servers(t); return len(pids) > 0 })
		time.Sleep(rand.N(whole))
		_ = unix.Kill(pids[0], unix.SIGKILL)
		err := cmd.Wait()
		if err == nil {
			b.del(file)
			b.nothingSince(before)
			continue
		}
		failed++
		want := "ublk-loop: error: attach " + file + ": "
		if !strings.HasPrefix(errOut.String(), want) {
			t.Errorf("it prints %q, %q", &out, &errOut)
		}
		b.nothingSince(before)
	}
	t.Logf("%d of %d servers were killed in time", failed, killTimes)
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
