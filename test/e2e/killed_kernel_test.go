package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// An add that is killed at any moment leaves nothing, unless it has printed the path. Its
// reader then knows of the device.
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
		// The killed add could not wait for its server, which ends by itself.
		waitUntil(t, "the end of the servers", func() bool { return len(servers(t)) == 0 })
		b.nothingSince(before)
		return out == ""
	})
}

// timeOfAdd returns the time of an add whose files are in the page cache.
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

// slowDisk returns a disk of 1 MiB whose reads take 100 ms. The kernel looks for partitions before add
// ends. Therefore add waits for its server at least that long, however late a busy machine tells the test of
// the server's start.
func (b *bed) slowDisk() string {
	b.Helper()
	b.tool("modprobe", "dm_delay")
	disk := b.testDisk()
	return b.mapped("--table", fmt.Sprintf("0 2048 delay %s 0 100 %s 0 0", disk, disk))
}

// kill starts an add in its own process group, kills the group after a time, and returns
// the output.
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

// An interrupted add ends when everything is removed, and names the file in its error.
func TestKernelAddInterrupted(t *testing.T) {
	b := kernelBed(t, ublktest.Soak, ublktest.ScratchDisk)
	file := b.slowDisk()
	before := things(t)
	whole := b.timeOfAdd(file)
	times, least, most := kills(t)
	ublktest.UntilHit(t, "interrupt before add is done", times, least, most, func(i int) bool {
		hit := b.interruptAdd(file, ublktest.Moment(whole, i))
		b.nothingSince(before)
		return hit
	})
}

// interruptAdd interrupts an add some time after the start of its server. It reports
// whether the interrupt came before the end of add, and removes the device otherwise.
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
		b.del(file) // add had finished
	default:
		b.Errorf("it ends with %v\n%s", err, &errOut)
	}
	return false
}

// If the server dies while add waits for it, add fails and leaves nothing. If the process that serves
// the requests dies, or both die, add does the same, unless the server can still serve alone.
func TestKernelServerKilledInAdd(t *testing.T) {
	b := kernelBed(t, ublktest.Soak, ublktest.ScratchDisk)
	file := b.slowDisk()
	before := things(t)
	whole := b.timeOfAdd(file)
	times, least, most := kills(t)
	for _, victims := range [][]string{{serverRole}, {apartRole}, {serverRole, apartRole}} {
		what := "kill of " + strings.Join(victims, " and ") + " that add waits for"
		ublktest.UntilHit(t, what, times, least, most, func(i int) bool {
			return b.killInAdd(file, victims[i%len(victims)], ublktest.Moment(whole, i), victims, before)
		})
	}
}

// killInAdd kills processes of an add some time after the start of one of them. It reports
// whether they were killed before the end of add, and removes the device if add succeeded. Nothing may
// be left then.
func (b *bed) killInAdd(file, started string, after time.Duration, victims, before []string) (hit bool) {
	b.Helper()
	cmd := b.command("add", file)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	waitUntil(b, started, func() bool { return len(processesOf(b, started)) > 0 })
	time.Sleep(after)
	// In order: a server whose other process has died begins to remove its device, and a kill in the middle
	// of that leaves files that only the next server removes.
	var pids []int
	for _, victim := range victims {
		for _, pid := range processesOf(b, victim) {
			_ = unix.Kill(pid, unix.SIGKILL)
			pids = append(pids, pid)
		}
	}
	runs := isRunning(b, cmd.Process)
	err := cmd.Wait()
	defer func() {
		if left := b.left(before); len(left) > 0 {
			b.Errorf("left behind: %q. Add ran: %v, processes %v were killed after %v. It ended with %v\n%s%s", left, runs, pids, after, err, &out, &errOut)
		}
	}()
	if err == nil {
		// If the process that serves the requests was killed after add, the server removes the device.
		b.del(file)
		waitUntil(b, "the end of the server", func() bool { return len(servers(b)) == 0 })
		return runs && victims[0] == apartRole
	}
	// The path may have been printed (docs/reliability.md).
	if want := "ublk-loop: error: attach " + file + ": "; !strings.HasPrefix(errOut.String(), want) {
		b.Errorf("it prints %q, %q", &out, &errOut)
	}
	return true
}

// isRunning reports whether a child has not ended.
func isRunning(t testing.TB, p *os.Process) bool {
	t.Helper()
	var info unix.Siginfo
	if err := unix.Waitid(unix.P_PID, p.Pid, &info, unix.WEXITED|unix.WNOWAIT|unix.WNOHANG, nil); err != nil {
		t.Fatal(err)
	}
	return info.Signo == 0
}

// Concurrent adds and dels do not disturb each other.
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

// kills returns how many kills a test makes at least, how many of them must come in time,
// and after how many the test gives up.
func kills(t testing.TB) (times, least, most int) {
	t.Helper()
	times = ublktest.Kills(t, 8, 16)
	return times, times / 2, 8 * times
}
