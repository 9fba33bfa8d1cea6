package e2e

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// pulse writes and reads back one block after the other, and records the longest time
// that a block took.
type pulse struct {
	longest atomic.Int64 // nanoseconds
	blocks  atomic.Int64
	stop    chan struct{}
	ended   chan error
}

func (b *bed) pulse(s client.Device) *pulse {
	p := &pulse{stop: make(chan struct{}), ended: make(chan error, 1)}
	// The exclusive open claims the device like a mount. Before Linux 7.0 a plain open is
	// invisible from another pid namespace.
	fd, err := unix.Open(s.Device, unix.O_RDWR|unix.O_DIRECT|unix.O_EXCL|unix.O_CLOEXEC, 0)
	if err != nil {
		b.Fatal(err)
	}
	mem, err := unix.Mmap(-1, 0, 8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		b.Fatal(err)
	}
	go func() {
		defer func() { _, _ = unix.Munmap(mem), unix.Close(fd) }()
		p.ended <- p.run(fd, mem[:4096], mem[4096:], int64(s.Size)/4096)
	}()
	return p
}

func (p *pulse) run(fd int, out, in []byte, n int64) error {
	for i := int64(0); ; i++ {
		select {
		case <-p.stop:
			return nil
		default:
		}
		for j := range out {
			out[j] = byte(i + int64(j))
		}
		start := time.Now()
		if _, err := unix.Pwrite(fd, out, i%n*4096); err != nil {
			return fmt.Errorf("write: %w", err)
		}
		if _, err := unix.Pread(fd, in, i%n*4096); err != nil {
			return fmt.Errorf("read: %w", err)
		}
		took := time.Since(start)
		p.longest.Store(max(p.longest.Load(), int64(took)))
		if string(in) != string(out) {
			return fmt.Errorf("block %d holds something else", i%n)
		}
		p.blocks.Add(1)
		time.Sleep(min(max(2*took, time.Millisecond), 20*time.Millisecond)) // leaves time for other processes, also in emulation
	}
}

// end ends the pulse, and checks that no I/O failed.
func (b *bed) end(p *pulse) {
	b.Helper()
	close(p.stop)
	if err := <-p.ended; err != nil {
		b.Error(err)
	}
}

// One program after the other takes over ten devices under I/O, one of them mounted, and
// a lease. No I/O fails, no data is lost, and the process stays the same.
func TestKernelUpgrade(t *testing.T) {
	b := kernelBed(t, ublktest.EveryKernel)
	disk := filepath.Dir(b.fileOn(b.loopDisk("", b.image(64<<20)))) // before serve, which ends first
	m := b.serve("--on-crash=reissue")
	var devices []client.Device
	var pulses []*pulse
	shared := ublktest.Fewer(b, 6, 3)
	for i := range shared + ublktest.Fewer(b, 3, 1) {
		// Devices with direct I/O on one disk share threads.
		image, direct := b.image(1<<20), "--direct-io=off"
		if i < shared {
			b.tool("cp", image, filepath.Join(disk, fmt.Sprint(i)))
			image, direct = filepath.Join(disk, fmt.Sprint(i)), "--direct-io=on"
		}
		s := b.add("--queues=2", "--depth=32", direct, image)
		devices = append(devices, s)
		pulses = append(pulses, b.pulse(s))
	}
	image := b.image(16 << 20)
	b.tool("mkfs.ext4", "-q", "-F", image)
	mounted := b.add(image)
	devices = append(devices, mounted)
	dir := t.TempDir()
	b.tool("mount", mounted.Device, dir)
	h := m.lease(b.image(1<<20), "")
	for generation := range ublktest.Fewer(b, 3, 2) {
		data := randomBytes(1 << 20)
		file := filepath.Join(dir, "file")
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if out := b.ok("upgrade"); !strings.HasSuffix(out, fmt.Sprintf("process %d, %d devices\n", m.pid(), len(devices)+1)) {
			t.Errorf("upgrade %d prints %q", generation, out)
		}
		m.serves(append(devices, h.device)...)
		b.holds(file, data)
		for _, p := range pulses {
			was := p.blocks.Load()
			waitUntil(t, "I/O goes on", func() bool { return p.blocks.Load() > was })
		}
	}
	longest := time.Duration(0)
	for _, p := range pulses {
		longest = max(longest, time.Duration(p.longest.Load()))
		b.end(p)
	}
	t.Logf("the longest write and read with all upgrades: %v", longest)
	// The new server has the lease.
	h.drop()
	waitUntil(t, "the leased device is gone", func() bool { return len(b.list()) == len(devices) })
	b.tool("umount", dir)
	b.tool("e2fsck", "-fn", mounted.Device)
}

// An upgrade is refused if a device would not outlive the server.
func TestKernelUpgradeRefused(t *testing.T) {
	b := kernelBed(t)
	b.run("upgrade").fails(t, 1, "no server")
	m := b.serve("--on-crash=reissue")
	s := b.add("--on-crash=fail", b.image(1<<20))
	b.run("upgrade").fails(t, 1, s.Device, "hint: --on-crash=reissue")
	b.works(s)
	m.serves(s)
	b.del(s.Device)
	b.ok("upgrade")
}

// unrecovered returns the devices that the server could not take over.
func (m *many) unrecovered() []client.Unrecovered {
	m.b.Helper()
	var status client.ServerStatus
	m.b.decode(m.curl("-f", "http://x/v1/server"), &status)
	return status.Unrecovered
}

// An upgrade fails if the next program cannot serve a device, and names that device. The
// others are served.
func TestKernelUpgradeLosesADevice(t *testing.T) {
	b := kernelBed(t, ublktest.OldestKernel)
	m := b.serve("--on-crash=reissue")
	file := b.image(1 << 20)
	kept, lost := b.add(b.image(1<<20)), b.add(file)
	pulse := b.pulse(kept)
	if err := os.Truncate(file, 4096); err != nil {
		t.Fatal(err)
	}
	r := b.run("upgrade")
	if want := fmt.Sprintf("process %d, 1 device\n", m.pid()); r.status != 1 || !strings.HasSuffix(r.out, want) {
		t.Errorf("exit status %d, output %q, want %q", r.status, r.out, want)
	}
	if !strings.Contains(r.err, lost.Device) || !strings.Contains(r.err, "too few") || strings.Contains(r.err, kept.Device) ||
		!strings.Contains(r.err, fmt.Sprintf("hint: its I/O waits; once the cause is gone, the server or ublk-loop recover %d", lost.ID)) {
		t.Errorf("errors are %q", r.err)
	}
	if left := m.unrecovered(); len(left) != 1 || left[0].ID != lost.ID || !strings.Contains(left[0].Error, "too few") {
		t.Errorf("the server says %+v", left)
	}
	b.end(pulse)
	m.serves(kept)
	if err := os.Truncate(file, 1<<20); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, "the server recovers the device", func() bool { return len(m.unrecovered()) == 0 })
	b.works(b.list(lost.Device)[0])
	b.del(lost.Device)
}

// The new program pings the watchdog as soon as it starts, so that it has the full
// interval until its next ping.
func TestKernelUpgradeAndWatchdog(t *testing.T) {
	b := kernelBed(t)
	name := filepath.Join(t.TempDir(), "notify")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	// Hours, so that no regular ping comes.
	m := b.serveIn([]string{"NOTIFY_SOCKET=" + name, "WATCHDOG_USEC=36000000000"})
	start := []string{"WATCHDOG=1", "READY=1", "WATCHDOG=1"}
	for _, want := range start {
		b.notified(manager, want)
	}
	b.ok("upgrade")
	parts := []string{"WATCHDOG=1", "WATCHDOG=1", "WATCHDOG=1", "WATCHDOG=1"} // each may take seconds
	for _, want := range append(parts, start...) {
		b.notified(manager, want)
	}
	m.stop()
}

// The next program gets a file that no longer has a name, and the time until which a
// device stays.
func TestKernelUpgradeHandsOver(t *testing.T) {
	b := kernelBed(t, ublktest.EveryKernel)
	m := b.serve("--on-crash=reissue")
	file := b.image(1 << 20)
	s := b.add(file)
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	unused := b.add("--autoclear=1h", b.image(1<<20))
	p := b.pulse(s)
	for range 2 {
		b.ok("upgrade")
		blocks := p.blocks.Load()
		waitUntil(t, "I/O goes on", func() bool { return p.blocks.Load() > blocks+2 })
	}
	b.end(p)
	m.serves(s, unused)
	b.del(unused.Device)
	b.del(s.Device)
}

// A disk that is the origin of a device is locked against writers also after an upgrade, and while the device
// waits for its next server.
func TestKernelUpgradeKeepsOriginLocked(t *testing.T) {
	b := kernelBed(t, ublktest.OldestKernel)
	image := b.image(4 << 20)
	disk := b.loopDisk("", image)
	m := b.serve("--on-crash=reissue")
	device := b.add(disk, "--cow", image+".cow")
	reader := b.add(disk, "--cow", image+".cow2")
	for range 2 {
		b.run("add", "--standalone", disk).fails(t, 1, "already in use by another reader or writer")
		b.ok("upgrade")
	}
	b.run("add", "--standalone", disk).fails(t, 1, "already in use by another reader or writer")
	b.run("merge", device.Device).fails(t, 1, "already in use by another reader or writer")
	b.del(reader.Device)
	b.ok("merge", device.Device)
	b.del(device.Device)
	m.stop()

	device = b.add("--on-crash", "reissue", disk, "--cow", image+".cow")
	b.killServer(device)
	b.run("add", disk).fails(t, 1, device.Device+" has it and waits for a server")
	b.del(b.recover(device).Device)
	b.del(b.add(disk).Device)
}
