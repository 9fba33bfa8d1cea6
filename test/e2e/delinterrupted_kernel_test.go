package e2e

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// del waits a moment for a device in use. An interrupt then leaves the device, and no lock.
func TestKernelDelInterrupted(t *testing.T) {
	b := kernelBed(t, ublktest.OldestKernel)
	s := b.add(b.image(1 << 20))
	disk, err := os.Open(s.Device)
	if err != nil {
		t.Fatal(err)
	}
	locks := func() []string {
		paths, err := filepath.Glob(filepath.Join(filepath.Dir(client.DefaultSocket), "*.lock"))
		if err != nil {
			t.Fatal(err)
		}
		return paths
	}
	cmd := b.command("del", s.Device)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, "del has the lock", func() bool { return len(locks()) > 0 })
	if err := cmd.Process.Signal(unix.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("an interrupted del succeeds")
	}
	if left := locks(); len(left) > 0 {
		t.Errorf("it leaves %q", left)
	}
	if list := b.list(); len(list) != 1 || list[0].State != "live" {
		t.Errorf("devices %+v, want one that is live", list)
	}
	if err := disk.Close(); err != nil {
		t.Fatal(err)
	}
	b.del(s.Device)
}

// The next del removes the lock of one that was killed, also of another device.
func TestKernelDelSweeps(t *testing.T) {
	b := kernelBed(t)
	s := b.add(b.image(1 << 20))
	stale := filepath.Join(filepath.Dir(client.DefaultSocket), "1048575.lock")
	if err := os.WriteFile(stale, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	b.del(s.Device)
	if _, err := os.Stat(stale); err == nil {
		t.Error("the lock of a killed process stays")
	}
}
