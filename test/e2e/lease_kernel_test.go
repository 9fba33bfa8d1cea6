package e2e

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/loop"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// holder is a client that holds a lease.
type holder struct {
	b      *bed
	cmd    *exec.Cmd
	device client.Device
}

// lease asks for a device with a lease, with curl.
func (m *many) lease(file string, config string) *holder {
	m.b.Helper()
	return m.leaseOf(fmt.Sprintf(`{"file":%q,"lease":true,"config":{%s}}`, file, config))
}

// leaseOf sends a request for a device with a lease.
func (m *many) leaseOf(body string) *holder {
	m.b.Helper()
	h := &holder{b: m.b, cmd: exec.Command("curl", "-sSfN", "--unix-socket", client.DefaultSocket, "-d", body, "http://x/v1/devices")}
	out, err := h.cmd.StdoutPipe()
	if err != nil {
		m.b.Fatal(err)
	}
	if err := h.cmd.Start(); err != nil {
		m.b.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &h.device)
	}
	if err != nil {
		_ = h.cmd.Process.Kill()
		m.b.Fatalf("lease of %s: %v: %s", body, err, line)
	}
	m.b.Cleanup(h.drop)
	return h
}

// drop ends the lease by ending its holder.
func (h *holder) drop() {
	_ = h.cmd.Process.Kill()
	_ = h.cmd.Wait()
}

// isGone waits for the removal of a device.
func (b *bed) isGone(s client.Device) {
	b.Helper()
	waitUntil(b, s.Device+" is gone", func() bool { return len(b.list()) == 0 })
	if _, err := os.Stat(s.Device); !os.IsNotExist(err) {
		b.Errorf("%s: error %v", s.Device, err)
	}
}

func TestKernelLease(t *testing.T) {
	b := kernelBed(t)
	m := b.serve()
	image := b.image(8 << 20)
	b.tool("mkfs.ext4", "-q", "-F", image)

	// A device that is never used goes with its lease.
	h := m.lease(image, "")
	if !h.device.Autoclear || !b.list()[0].Autoclear {
		t.Errorf("a leased device: %+v", h.device)
	}
	b.works(m.lease(b.image(1<<20), "").device)
	h.drop()
	waitUntil(t, "one device is left", func() bool { return len(b.list()) == 1 })

	// A mounted device stays until it is unmounted.
	h = m.lease(image, "")
	dir := t.TempDir()
	b.tool("mount", h.device.Device, dir)
	h.drop()
	file := filepath.Join(dir, "file")
	data := randomBytes(1 << 20)
	for range 20 { // the server checks many times whether the device is in use
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		unix.Sync()
	}
	if len(b.list()) != 2 {
		t.Fatal("a device that is mounted is gone")
	}
	b.tool("umount", dir)
	waitUntil(t, "one device is left", func() bool { return len(b.list()) == 1 })

	// A device stays while a process has it open without a mount.
	h = m.lease(image, "")
	f, err := os.Open(h.device.Device)
	if err != nil {
		t.Fatal(err)
	}
	h.drop()
	if _, err := f.Read(make([]byte, 4096)); err != nil {
		t.Errorf("read of a device whose holder is gone: %v", err)
	}
	if len(b.list()) != 2 {
		t.Fatal("a device that is open is gone")
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, "one device is left", func() bool { return len(b.list()) == 1 })
}

// A kept device no longer depends on its holder.
func TestKernelLeaseKept(t *testing.T) {
	b := kernelBed(t)
	m := b.serve()
	h := m.lease(b.image(1<<20), "")
	m.curl("-f", "-X", "POST", fmt.Sprintf("http://x/v1/devices/%d/keep", h.device.ID))
	if s := b.list()[0]; s.Autoclear {
		t.Error("list shows that it goes when nobody uses it")
	}
	h.drop()
	other := m.lease(b.image(1<<20), "")
	other.drop()
	waitUntil(t, "the other is gone", func() bool { return len(b.list()) == 1 })
	m.curl("-f", "-X", "DELETE", fmt.Sprintf("http://x/v1/devices/%d", h.device.ID))
	b.isGone(h.device)
}

// If the holder goes before the server answers, the device goes.
func TestKernelLeaseOfNobody(t *testing.T) {
	b := kernelBed(t)
	b.serve()
	for range 10 {
		body := fmt.Sprintf(`{"file":%q,"lease":true}`, b.image(1<<20))
		cmd := exec.Command("curl", "-sN", "--unix-socket", client.DefaultSocket, "-d", body, "http://x/v1/devices")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		waitUntil(t, "the device is on its way", func() bool {
			paths, _ := filepath.Glob("/sys/class/ublk-char/*")
			return len(paths) > 0
		})
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		waitUntil(t, "nothing is left", func() bool {
			paths, _ := filepath.Glob("/sys/class/ublk-char/*")
			return len(paths) == 0
		})
	}
}

// A device with autoclear stays for a time, and then goes after its last close.
func TestKernelAutoclear(t *testing.T) {
	b := kernelBed(t, ublktest.Waits)
	image := b.image(16 << 20)
	b.run("add", "--autoclear", image).fails(t, 1, "no server", "hint: start ublk-loop serve")
	b.run("add", "--autoclear", "--standalone", image).fails(t, 2, "--autoclear")
	b.serve()
	b.tool("mkfs.ext4", "-q", "-F", image)
	s := b.add("--autoclear", image)
	dir := t.TempDir()
	b.tool("mount", s.Device, dir)
	unused := b.add("--autoclear=100ms", b.image(1<<20))
	if !s.Autoclear || !unused.Autoclear {
		t.Errorf("add says: %+v, %+v", s, unused)
	}
	waitUntil(t, "what nobody uses is gone", func() bool { return len(b.list()) == 1 })
	b.tool("umount", dir)
	waitUntil(t, "the device goes after its last close", func() bool { return len(b.list()) == 0 })
}

// A holder notices that its device was removed, even if another device of the same file
// has the same number and name.
func TestKernelHeldDeviceReplaced(t *testing.T) {
	b := kernelBed(t)
	m := b.serve()
	defer m.stop()
	path := b.image(4 << 20)
	file, err := loop.OpenPath(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	held, err := client.New(client.DefaultSocket).Attach(t.Context(), client.AddRequest{File: path}, client.Files{File: file})
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	held.Release()
	if err := held.Reopen(t.Context()); err != nil {
		t.Fatalf("the device itself: %v", err)
	}
	held.Release()
	b.del(held.Device.Device)
	other := b.add("--id", strconv.FormatUint(uint64(held.Device.ID), 10), path)
	if other.Device != held.Device.Device || other.DiskSequence == held.Device.DiskSequence {
		t.Fatalf("%s has sequence %d, was %s with %d", other.Device, other.DiskSequence, held.Device.Device, held.Device.DiskSequence)
	}
	if !held.IsLost(t.Context()) {
		t.Error("the server says that it is there")
	}
	if err := held.Reopen(t.Context()); !errors.Is(err, client.ErrLost) {
		t.Errorf("error %v, want ErrLost", err)
	}
	held.Release()
	b.del(other.Device)
}
