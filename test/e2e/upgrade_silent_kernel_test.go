package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// patientFor is longer than an upgrade holds requests before it fails.
const patientFor = 15 * time.Second

// While the file of a device does not answer, an upgrade fails and names the device. The
// other devices continue.
func TestKernelUpgradeWithSilentFile(t *testing.T) {
	b := kernelBed(t, ublktest.Waits)
	canResize := b.canResize()
	m := b.serve("--on-crash=reissue")
	file := b.userFile()
	silent, works := b.add("--direct-io=off", file.path), b.add(b.image(1<<20))
	b.ok("upgrade")
	p := b.pulse(works)
	file.signal(unix.SIGSTOP)
	for range 2 {
		r := b.run("upgrade")
		r.fails(t, 1, silent.Device, "does not answer", "hint: try again")
		if strings.Contains(r.err, works.Device) {
			t.Errorf("it names the other device: %s", r.err)
		}
		blocks := p.blocks.Load()
		waitUntil(t, "I/O goes on", func() bool { return p.blocks.Load() > blocks+2 })
	}
	// A search for one file of the server queries no other file.
	if canResize {
		b.ok("resize", works.Device)
	}
	file.signal(unix.SIGCONT)
	waitUntil(t, "an upgrade when the file answers", func() bool { return b.run("upgrade").status == 0 })
	b.end(p)
	if longest := time.Duration(p.longest.Load()); longest > patientFor {
		t.Errorf("the other device has waited for %v", longest)
	}
	m.serves(silent, works)
	b.works(silent)
	b.del(silent.Device, works.Device)
}

// An upgrade closes no file, because a file system in user space may never answer a
// close.
func TestKernelUpgradeClosesNoFile(t *testing.T) {
	b := kernelBed(t)
	m := b.serve("--on-crash=reissue")
	file := b.userFile()
	s, works := b.add("--direct-io=off", file.path), b.add(b.image(1<<20))
	p := b.pulse(works)
	file.signal(unix.SIGUSR1)
	for range 2 {
		b.ok("upgrade")
		blocks := p.blocks.Load()
		waitUntil(t, "I/O goes on", func() bool { return p.blocks.Load() > blocks+2 })
		if pid := b.apartOf(m.pid()); pid != 0 {
			t.Errorf("process %d was started, which has closed the file", pid)
		}
	}
	b.works(s)
	file.signal(unix.SIGUSR2)
	b.end(p)
	m.serves(s, works)
	b.del(s.Device, works.Device)
}

// The kernel cannot end a program while its requests have no result. Therefore an upgrade
// fails and names the device, and the other devices continue.
func TestKernelUpgradeWithHungDisk(t *testing.T) {
	b := kernelBed(t, ublktest.ScratchDisk, ublktest.Waits)
	disk := b.testDisk()
	b.tool("dmsetup", "create", "hangs", "--noudevsync", "--table", fmt.Sprintf("0 65536 linear %s 0", disk))
	t.Cleanup(func() { b.tool("dmsetup", "remove", "--retry", "--noudevsync", "hangs") })
	path := "/dev/" + strings.TrimSpace(b.tool("dmsetup", "info", "-c", "--noheadings", "-o", "blkdevname", "hangs"))
	m := b.serve("--on-crash=reissue")
	works := b.add(b.image(1 << 20))
	for name, flag := range map[string]string{"direct": "--direct-io=on", "buffered": "--direct-io=off"} {
		t.Run(name, func(t *testing.T) {
			b := b.in(t)
			hangs := b.add(flag, path)
			f, err := os.OpenFile(hangs.Device, os.O_RDWR|unix.O_DIRECT, 0)
			if err != nil {
				t.Fatal(err)
			}
			b.tool("dmsetup", "suspend", "--noflush", "--nolockfs", "--noudevsync", "hangs")
			page, flushed := alignedPage(t), make(chan error, 1)
			go func() { // returns when the disk continues; received below
				_, err := f.WriteAt(page, 4096)
				if err == nil {
					err = f.Sync()
				}
				flushed <- err
			}()
			waitUntil(t, "the request is at the disk", func() bool { return b.hasRequest(hangs) })
			p := b.pulse(works)
			r := b.run("upgrade")
			r.fails(t, 1, hangs.Device, "does not answer")
			if strings.Contains(r.err, works.Device) {
				t.Errorf("it names the other device: %s", r.err)
			}
			blocks := p.blocks.Load()
			waitUntil(t, "I/O goes on", func() bool { return p.blocks.Load() > blocks+2 })
			b.tool("dmsetup", "resume", "--noudevsync", "hangs")
			if err := <-flushed; err != nil {
				t.Error(err)
			}
			b.ok("upgrade")
			b.end(p)
			m.serves(works, hangs)
			if err := f.Close(); err != nil {
				t.Error(err)
			}
			b.del(hangs.Device)
		})
	}
	b.del(works.Device)
}

// hasRequest reports whether the driver has a request of a device, of any kind.
func (b *bed) hasRequest(s client.Device) bool {
	b.Helper()
	queues, err := filepath.Glob(fmt.Sprintf("/sys/kernel/debug/block/ublkb%d/hctx*/busy", s.ID))
	if err != nil || len(queues) == 0 {
		b.Fatalf("find queues of %s: %d, error %v", s.Device, len(queues), err)
	}
	for _, path := range queues {
		data, err := os.ReadFile(path)
		if err != nil {
			b.Fatal(err)
		}
		if strings.Contains(string(data), "state=in_flight") {
			return true
		}
	}
	return false
}

// An upgrade is refused while a request waits for a file system that does not answer. Otherwise it would wait for
// the request's thread, with all devices.
func TestKernelUpgradeWhileSilentFileOpens(t *testing.T) {
	b := kernelBed(t)
	m := b.serve()
	file := b.userFile()
	file.signal(unix.SIGUSR1)
	path := filepath.Join(filepath.Dir(file.path), "mute")
	answered := make(chan struct{})
	go func() { // ends with the request
		defer close(answered)
		_, _ = m.try("-d", `{"file":"`+path+`"}`, "http://x/v1/devices")
	}()
	file.done()
	b.run("upgrade").fails(t, 1, "devices are being added or removed")
	file.signal(unix.SIGUSR2)
	<-answered
	b.ok("upgrade")
}
