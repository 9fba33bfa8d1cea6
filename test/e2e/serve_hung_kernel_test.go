package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// A device whose disk hangs delays only its own removal. Meanwhile other devices are
// served, added and removed, and the log says what hangs. When the disk continues,
// everything finishes.
func TestKernelServeHungDevice(t *testing.T) {
	b := kernelBed(t, ublktest.ScratchDisk, ublktest.Waits)
	disk := b.testDisk()
	b.tool("dmsetup", "create", "hangs", "--noudevsync", "--table", "0 2048 linear "+disk+" 0")
	t.Cleanup(func() { b.tool("dmsetup", "remove", "--retry", "--noudevsync", "hangs") })
	path := "/dev/" + strings.TrimSpace(b.tool("dmsetup", "info", "-c", "--noheadings", "-o", "blkdevname", "hangs"))
	log := t.TempDir() + "/log"
	b.serve("--log-file", log)
	hangs, works := b.add(path), b.add(b.image(1<<20))
	b.tool("dmsetup", "suspend", "--noflush", "--nolockfs", "--noudevsync", "hangs")
	resumed := false
	resume := func() {
		if !resumed {
			resumed = true
			b.tool("dmsetup", "resume", "--noudevsync", "hangs")
		}
	}
	t.Cleanup(resume)
	// The device's page cache has a dirty page, which its removal has to write.
	f, err := os.OpenFile(hangs.Device, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(randomBytes(1 << 20)); err != nil {
		t.Fatal(err)
	}
	closed := make(chan error, 1) // the last close writes it, too
	go func() { closed <- f.Close() }()
	waitUntil(t, "the write is under way", func() bool { return b.attr(hangs, "inflight") != "0        0" })
	removed := make(chan result, 1)
	go func() {
		cmd := exec.Command("curl", "-sSf", "-X", "DELETE", "--max-time", "60", "--unix-socket", "/run/ublk-loop/control.sock",
			fmt.Sprintf("http://x/v1/devices/%d?force=true", hangs.ID))
		removed <- b.runCommand(cmd)
	}()
	saysWhatHangs := func() bool { // after ten seconds
		text, err := os.ReadFile(log)
		return err == nil && strings.Contains(string(text), "stop "+hangs.Device+": takes long")
	}
	until := time.Now().Add(12 * time.Second)
	for n := 0; time.Now().Before(until) && !saysWhatHangs(); n++ {
		time.Sleep(200 * time.Millisecond) // a few tries a second are enough, and leave the CPU to other machines
		b.works(works)
		other := b.add(b.image(1 << 20))
		b.del(other.Device)
		if n == 0 {
			select {
			case r := <-removed:
				t.Fatalf("a device whose page cannot be written is removed: %+v", r)
			default:
			}
		}
	}
	waitUntil(t, "the log says what hangs", saysWhatHangs)
	resume()
	if r := <-removed; r.status != 0 {
		t.Errorf("removed after the disk was back: %+v", r)
	}
	<-closed //nolint:errcheck // an error where the removal was first
	b.del(works.Device)
	unix.Sync()
}

// hungScan suspends the disk of a device, and starts a scan for partitions, which hangs.
// The returned function resumes the disk.
func (b *bed) hungScan(s client.Device, mapped string) (resume func()) {
	b.Helper()
	b.tool("dmsetup", "suspend", "--noflush", "--nolockfs", "--noudevsync", mapped)
	// The scan has the lock of the disk, for which every open and every stop waits.
	scan := exec.Command("blockdev", "--rereadpt", s.Device)
	if err := scan.Start(); err != nil {
		b.Fatal(err)
	}
	waitUntil(b, "the scan reads", func() bool { return b.attr(s, "inflight") != "0        0" })
	resume = sync.OnceFunc(func() {
		b.tool("dmsetup", "resume", "--noudevsync", mapped)
		_ = scan.Wait() // fails if the device has been removed
	})
	b.Cleanup(resume)
	return resume
}

// A device that cannot be stopped does not delay the removal of another one that is
// released. The log names the device that cannot be stopped.
func TestKernelReleaseBesideHungDevice(t *testing.T) {
	b := kernelBed(t, ublktest.ScratchDisk, ublktest.Waits)
	path := b.mapped("--table", "0 65536 linear "+b.testDisk()+" 0")
	log := t.TempDir() + "/log"
	m := b.serve("--log-file", log)
	hangs, other := m.lease(path, `"partscan":true`), m.lease(b.image(1<<20), "")
	resume := b.hungScan(hangs.device, "ublk-loop-recover")
	hangs.drop()
	waitUntil(t, "the log says what hangs", func() bool {
		text, err := os.ReadFile(log)
		return err == nil && strings.Contains(string(text), hangs.device.Device+": takes long")
	})
	other.drop()
	waitUntil(t, "the other device is gone", func() bool { return len(b.list()) == 1 })
	b.del(b.add(b.image(1 << 20)).Device)
	resume()
	b.isGone(hangs.device)
}
