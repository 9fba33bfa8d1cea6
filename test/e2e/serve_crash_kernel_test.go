package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// serves checks that the server serves the devices.
func (m *many) serves(devices ...client.Device) {
	m.b.Helper()
	for _, d := range devices {
		list := m.b.list(d.Device)
		if list[0].PID != m.pid() || list[0].State != "live" {
			m.b.Errorf("%s: %s, process %d; want live, %d", d.Device, list[0].State, list[0].PID, m.pid())
		}
	}
}

// A restarted server takes over the devices that outlived the last server, whether it was
// killed or stopped. Waiting I/O continues.
func TestKernelServeAgain(t *testing.T) {
	b := kernelBed(t, ublktest.EveryKernel)
	ends := map[string]func(*many){"killed": (*many).kill, "ended": (*many).stop}
	for _, name := range ublktest.Sample(b, 0, "killed", "ended") {
		t.Run(name, func(t *testing.T) {
			b := b.in(t)
			m := b.serve("--on-crash=reissue")
			one, two := b.add(b.image(4<<20)), b.add(b.image(4<<20))
			fails := b.add("--on-crash=fail", b.image(4<<20))
			f := b.openExclusively(one.Device)
			g := b.openExclusively(two.Device)
			defer func() { _, _ = unix.Close(f), unix.Close(g) }()
			ends[name](m)
			for _, s := range []client.Device{one, two} {
				b.waits(s)
			}
			data := randomBytes(4 << 20)
			tid, stored := make(chan int, 1), make(chan error, 1)
			go func() { // until a server comes; received below
				runtime.LockOSThread()
				defer runtime.UnlockOSThread()
				_, err := unix.Pwrite(f, data, 0)
				tid <- unix.Gettid()
				if err == nil {
					err = unix.Fsync(f)
				}
				stored <- err
			}()
			b.sleepsInKernel(<-tid)
			m = b.serve()
			if err := <-stored; err != nil {
				t.Fatal(err)
			}
			m.serves(one, two)
			b.holds(one.Device, data)
			b.del("--force", one.Device, two.Device, fails.Device)
		})
	}
}

// sleepsInKernel waits until a thread of this process is in an uninterruptible sleep, as
// during I/O.
func (b *bed) sleepsInKernel(tid int) {
	b.Helper()
	waitUntil(b, "a thread waits for I/O", func() bool {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/stat", tid))
		if err != nil {
			b.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(stat), ") ")
		return strings.HasPrefix(rest, "D")
	})
}

func (b *bed) openExclusively(path string) int {
	b.Helper()
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_EXCL|unix.O_CLOEXEC, 0)
	if err != nil {
		b.Fatal(err)
	}
	return fd
}

// A lease ends with its server. The next server takes over the device, and removes it
// when it is not in use.
func TestKernelServeAgainWithoutHolder(t *testing.T) {
	b := kernelBed(t)
	m := b.serve("--on-crash=reissue")
	h := m.lease(b.image(1<<20), "")
	used := m.lease(b.image(1<<20), "")
	f := b.openExclusively(used.device.Device)
	m.kill()
	m = b.serve()
	waitUntil(t, "the one that nobody uses is gone", func() bool { return len(b.list()) == 1 })
	m.serves(used.device)
	if err := unix.Close(f); err != nil {
		t.Fatal(err)
	}
	b.isGone(used.device)
	_ = h
}

// A stopped server delays a forced removal only until its time to end is over.
func TestKernelForceStoppedServer(t *testing.T) {
	b := kernelBed(t, ublktest.Waits)
	s := b.add("--standalone", b.image(1<<20))
	fd := b.openExclusively(s.Device)
	defer func() { _ = unix.Close(fd) }()
	b.suspend(s)
	failed := make(chan error, 1)
	go func() {
		_, err := unix.Pwrite(fd, make([]byte, 4096), 0)
		if err == nil {
			err = unix.Fsync(fd)
		}
		failed <- err
	}()
	waitUntil(t, "the write is under way", func() bool {
		return b.attr(s, "inflight") != "0        0"
	})
	b.del("--force", s.Device)
	if err := <-failed; err == nil {
		t.Error("a write that no server had a part in has succeeded")
	}
}

// Users of devices do not notice that the server was killed, whoever restarts it: no
// request fails, and each block has its last write.
func TestKernelServeUnderLoad(t *testing.T) {
	b := kernelBed(t, ublktest.EveryKernel, ublktest.Soak)
	m := b.serve("--on-crash=reissue")
	var devices []client.Device
	var loads []*load
	for _, zeroCopy := range []string{"auto", "off"} {
		s := b.add("--zero-copy", zeroCopy, b.image(loadBytes))
		devices = append(devices, s)
		loads = append(loads, startLoad(b, s.Device))
	}
	n := ublktest.Kills(b, ublktest.Fewer(b, 4, 2), 15)
	for range n {
		for _, l := range loads {
			l.goesOn(b)
		}
		time.Sleep(rand.N(200 * time.Millisecond))
		m.kill()
		m = b.serve("--on-crash=reissue")
	}
	m.serves(devices...)
	for _, l := range loads {
		failed := l.end(b)
		t.Logf("%d kills, %d writes, %d requests failed", n, l.wrote.Load(), failed)
		if failed > 0 {
			t.Errorf("%d requests failed", failed)
		}
	}
}
