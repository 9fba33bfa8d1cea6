package e2e

import (
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/ublk/uapi"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// If several processes recover a device at the same time, exactly one succeeds.
func TestKernelRecoverTwice(t *testing.T) {
	b := kernelBed(t, ublktest.EveryKernel)
	s := b.add("--on-crash=reissue", b.image(4<<20))
	for range ublktest.Fewer(b, 5, 2) {
		b.killServer(s)
		const times = 3
		results := make(chan result, times)
		for range times {
			go func() { results <- b.run("recover", s.Device) }() // received below
		}
		won := 0
		for range times {
			r := <-results
			if r.status == 0 {
				won++
				continue
			}
			r.fails(t, 1, s.Device, "is served")
		}
		if won != 1 {
			t.Errorf("%d have recovered it", won)
		}
		// The servers of the others end by themselves.
		waitUntil(t, "one server is left", func() bool { return len(servers(t)) == 1 })
		s = b.list(s.Device)[0]
		b.writeSector(s.Device, 4<<20-512)
	}
	b.del(s.Device)
}

// A recovery that is killed together with its server can be repeated. On a kernel that
// would crash, recover refuses with an error, and del works. The test does not run on
// kernels that may hang.
func TestKernelRecoverKilled(t *testing.T) {
	b := kernelBed(t, ublktest.EveryKernel, ublktest.Soak)
	offered, err := b.ctl.Features()
	if err != nil {
		t.Fatal(err)
	}
	if offered.Has(uapi.UBLK_F_QUIESCE) && !offered.Has(uapi.UBLK_F_SHMEM_ZC) {
		// Before Linux 7.1 the driver may never end the commands of a killed recovery
		// (docs/kernels.md).
		ublktest.Lacks(t, ublktest.SafeRecovery)
	}
	file := b.image(4 << 20)
	s := b.add("--on-crash=reissue", file)
	b.killServer(s)
	start := time.Now()
	s = b.recover(s)
	whole := time.Since(start)
	again, refused := 0, 0
	times, least, most := kills(t)
	ublktest.UntilHit(t, "kill of a recovery half way", times, least, most, func(i int) (hit bool) {
		b.killServer(s)
		if i%2 == 0 {
			b.killRecovery(s, ublktest.Moment(whole, i/2))
		} else {
			b.killNewServer(s)
		}
		hit = b.stateOf(s).Recovering
		r := b.run("recover", s.Device)
		switch {
		case r.status == 0:
			again++
		case strings.Contains(r.err, "is served"):
			// The recovery had finished, and its server was not killed.
		default:
			refused++
			r.fails(t, 1, s.Device, "half way", "hint: del")
			if offered.Has(uapi.UBLK_F_QUIESCE) {
				t.Errorf("refused on a kernel that can: %s", r.err)
			}
			b.del(s.Device)
			s = b.add("--on-crash=reissue", file)
		}
		b.writeSector(s.Device, 4<<20-512)
		s = b.list(s.Device)[0]
		return hit
	})
	t.Logf("killed within %v: %d were recovered again, %d refused", whole, again, refused)
	if !offered.Has(uapi.UBLK_F_QUIESCE) && refused == 0 {
		t.Error("no recovery was refused on a kernel that crashes over a second one")
	}
	b.del(s.Device)
}

// deviceState holds the parts of a device's state file that tests read.
type deviceState struct {
	Recovering bool
	Status     client.Device
}

// stateOf returns the state that the device's last server has written.
func (b *bed) stateOf(s client.Device) deviceState {
	b.Helper()
	data, err := os.ReadFile("/run/ublk-loop/" + fmtID(s) + ".json")
	if err != nil {
		b.Fatal(err)
	}
	var state deviceState
	b.decode(string(data), &state)
	return state
}

// killRecovery starts a recovery, and kills it and its server after a time.
func (b *bed) killRecovery(s client.Device, after time.Duration) {
	b.Helper()
	cmd := b.command("recover", s.Device)
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	time.Sleep(after)
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	b.killServers()
}

// killNewServer starts a recovery, and kills only its server while the recovery is
// running. The recovery must not remove the device, as add would.
func (b *bed) killNewServer(s client.Device) {
	b.Helper()
	written := b.watchStates()
	cmd := b.command("recover", s.Device)
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	for {
		written()
		if state := b.stateOf(s); state.Status.PID != s.PID {
			_ = unix.Kill(state.Status.PID, unix.SIGKILL)
			break
		}
	}
	_ = cmd.Wait()
	b.killServers()
}

// watchStates returns a function that waits until a server has written a state.
func (b *bed) watchStates() (written func()) {
	b.Helper()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		b.Fatal(err)
	}
	watch := os.NewFile(uintptr(fd), "inotify")
	b.Cleanup(func() { _ = watch.Close() })
	if _, err := unix.InotifyAddWatch(fd, "/run/ublk-loop", unix.IN_MOVED_TO); err != nil {
		b.Fatal(err)
	}
	return func() {
		b.Helper()
		if err := watch.SetReadDeadline(time.Now().Add(waitLimit)); err != nil {
			b.Fatal(err)
		}
		if _, err := watch.Read(make([]byte, 4096)); errors.Is(err, os.ErrDeadlineExceeded) {
			ublktest.TimedOut(b, waitLimit, "a server writes its state")
		} else if err != nil {
			b.Fatal(err)
		}
	}
}

// killServers kills all servers, and waits for their end.
func (b *bed) killServers() {
	b.Helper()
	for _, pid := range servers(b) {
		if pidfd, err := unix.PidfdOpen(pid, 0); err == nil {
			_ = unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0)
			b.waitForEnd(pidfd)
		}
	}
}

// The end of a recovery's caller does not end the server, because the device has other
// users.
func TestKernelRecoverOutlivesItsCaller(t *testing.T) {
	b := kernelBed(t, ublktest.EveryKernel, ublktest.Soak)
	s := b.add("--on-crash=reissue", b.image(4<<20))
	n := ublktest.Kills(b, 4, 4)
	ublktest.UntilHit(t, "kill of who waits for a recovery", n, n, 8*n, func(int) (hit bool) {
		b.killServer(s)
		cmd := b.command("recover", s.Device)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// From here on, the server has its task.
		waitUntil(t, "a server in the state file", func() bool { return b.stateOf(s).Status.PID != s.PID })
		_ = syscall.Kill(-cmd.Process.Pid, unix.SIGKILL)
		_ = cmd.Wait()
		hit = !cmd.ProcessState.Exited()
		// The driver says first that the device has a server. Only after the server's last note of the recovery may it be killed
		// again: before Linux 6.16 a recovery that has ended half way is not repeated.
		waitUntil(t, "the recovery", func() bool {
			s = b.list(s.Device)[0]
			return s.State == "live" && s.PID != 0 && !b.stateOf(s).Recovering
		})
		b.writeSector(s.Device, 512)
		return hit
	})
	b.del(s.Device)
}
