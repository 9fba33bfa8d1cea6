package e2e

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// withoutProc returns a call of the command in a namespace without /proc.
func (b *bed) withoutProc(args ...string) *exec.Cmd { return b.without("/proc", args...) }

// without returns a call of the command in a namespace with nothing in a directory.
func (b *bed) without(dir string, args ...string) *exec.Cmd {
	script := "mount -t tmpfs none " + dir + ` && exec "$@"`
	cmd := exec.Command("sh", append([]string{"-c", script, "sh", b.bin}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
	return cmd
}

// Without /proc, servers would look dead and devices unused. Each command that depends on
// /proc fails with a hint, and does not change the devices.
func TestKernelWithoutProc(t *testing.T) {
	b := kernelBed(t, ublktest.Plain) // the race detector prints a warning without /proc
	image := b.image(1 << 20)
	dev := b.add(image)
	disk, err := os.Open(dev.Device)
	if err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"add", b.image(1 << 20)},
		{"list"},
		{"list", dev.Device},
		{"resize", dev.Device},
		{"recover", dev.Device},
		{"serve"},
		{"add", "--foreground", b.image(1 << 20)},
	} {
		b.runCommand(b.withoutProc(args...)).fails(t, 1, "/proc", "hint: mount /proc: mount -t proc proc /proc")
	}
	// Since Linux 7.0 the driver itself looks for users of a device.
	b.runCommand(b.withoutProc("del", dev.Device)).fails(t, 1)
	if err := disk.Close(); err != nil {
		t.Fatal(err)
	}
	if list := b.list(); len(list) != 1 || list[0].State != "live" {
		t.Errorf("devices %+v, want one that is live", list)
	}
	b.del(dev.Device)
}

// Without /sys there would seem to be no devices. Each command that depends on /sys fails with a
// hint, and does not change the devices.
func TestKernelWithoutSys(t *testing.T) {
	b := kernelBed(t)
	image := b.image(1 << 20)
	dev, log := b.add(image), filepath.Join(t.TempDir(), "log")
	for _, args := range [][]string{
		{"add", b.image(1 << 20)},
		{"list"},
		{"list", image},
		{"del", image},
		{"del", "--all"},
		{"resize", image},
		{"recover"},
		{"serve", "--log-file", log},
		{"serve", "--supervise", "--log-file", log},
	} {
		b.runCommand(b.without("/sys", args...)).fails(t, 1, "/sys is not mounted", "hint: mount /sys: mount -t sysfs sys /sys")
	}
	if _, err := os.Stat(client.DefaultSocket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a server has left its socket: %v", err)
	}
	if list := b.list(); len(list) != 1 || list[0].State != "live" {
		t.Errorf("devices %+v, want one that is live", list)
	}
	b.del(dev.Device)
}
