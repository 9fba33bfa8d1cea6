package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// reader opens a file read-only, like a user who may only read it.
func (b *bed) reader(path string) *os.File {
	b.Helper()
	f, err := os.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = f.Close() })
	return f
}

// Any user who may read a file may lock it (flock(2)). add warns of such a lock, but
// attaches the file.
func TestKernelAddWithForeignLock(t *testing.T) {
	b := kernelBed(t)
	const warning = "another program has locked the file"
	for name, tt := range map[string]struct {
		args   []string
		lock   int
		warned bool
	}{
		"exclusive":             {nil, unix.LOCK_EX, true},
		"exclusive, read-only":  {[]string{"--read-only"}, unix.LOCK_EX, true},
		"shared":                {nil, unix.LOCK_SH, true},
		"shared, read-only":     {[]string{"--read-only"}, unix.LOCK_SH, false},
		"exclusive, and shared": {[]string{"--shared"}, unix.LOCK_EX, false},
	} {
		t.Run(name, func(t *testing.T) {
			b := b.in(t)
			image := b.image(1 << 20)
			if err := unix.Flock(int(b.reader(image).Fd()), tt.lock); err != nil {
				t.Fatal(err)
			}
			r := b.run(append(append([]string{"add"}, tt.args...), image)...)
			if r.status != 0 {
				t.Fatalf("add: %+v", r)
			}
			if strings.Contains(r.err, warning) != tt.warned {
				t.Errorf("warned %v, want %v: %q", !tt.warned, tt.warned, r.err)
			}
			b.del(strings.TrimSpace(r.out))
		})
	}
}

// A loop device of the kernel takes no lock. add warns of it, unless both only read.
func TestKernelAddBesideLoopDevice(t *testing.T) {
	b := kernelBed(t)
	if err := exec.Command("modprobe", "loop").Run(); err != nil {
		t.Skipf("no loop devices: %v", err)
	}
	for name, tt := range map[string]struct {
		loop, add []string
		warned    bool
	}{
		"both write":         {nil, nil, true},
		"add only reads":     {nil, []string{"--read-only"}, true},
		"losetup only reads": {[]string{"--read-only"}, nil, true},
		"both only read":     {[]string{"--read-only"}, []string{"--read-only"}, false},
		"shared":             {nil, []string{"--shared"}, false},
		"origin of a store":  {[]string{"--read-only"}, []string{"--cow", filepath.Join(t.TempDir(), "store")}, false},
		"table that writes":  {[]string{"--read-only"}, []string{"--table", "0 2048 linear IMAGE 0"}, true},
		"table that reads":   {[]string{"--read-only"}, []string{"--table", "name,,,ro,0 2048 linear IMAGE 0"}, false},
		"origin in a table":  {[]string{"--read-only"}, []string{"--table", "0 2048 snapshot IMAGE STORE P 8"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			b := b.in(t)
			image := b.image(1 << 20)
			out, err := exec.Command("losetup", append(tt.loop, "--find", "--show", image)...).Output()
			if err != nil {
				t.Fatal(err)
			}
			device := strings.TrimSpace(string(out))
			args := append(slices.Clone(tt.add), image)
			if slices.Contains(tt.add, "--table") {
				args = []string{"--table", b.tableFile(tt.add[1], image)}
			}
			r := b.run(append([]string{"add"}, args...)...)
			if r.status != 0 {
				t.Fatalf("add: %+v", r)
			}
			if strings.Contains(r.err, "the loop device "+device+" has the file") != tt.warned {
				t.Errorf("warned %v, want %v: %q", !tt.warned, tt.warned, r.err)
			}
			b.del(strings.TrimSpace(r.out))
			if out, err := exec.Command("losetup", "--detach", device).CombinedOutput(); err != nil {
				t.Errorf("losetup: %v\n%s", err, out)
			}
		})
	}
}

// tableFile writes a table to a file. IMAGE stands for an image, and STORE for a file of zeros.
func (b *bed) tableFile(text, image string) string {
	b.Helper()
	dir := b.TempDir()
	store, path := filepath.Join(dir, "store"), filepath.Join(dir, "table")
	if err := os.WriteFile(store, make([]byte, 1<<20), 0o600); err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(strings.NewReplacer("IMAGE", image, "STORE", store).Replace(text)), 0o600); err != nil {
		b.Fatal(err)
	}
	return path
}

// A user who waits for the lock of a file gets it from a server that was killed, but not
// from one that is replaced. In neither case does the user keep the next server from the
// device.
func TestKernelForeignLockBetweenServers(t *testing.T) {
	b := kernelBed(t, ublktest.OldestKernel)
	m := b.serve("--on-crash=reissue")
	s := b.add(b.image(1 << 20))
	user, locked := b.reader(s.File), make(chan error, 1)
	go func() { locked <- unix.Flock(int(user.Fd()), unix.LOCK_EX) }() // received below
	p := b.pulse(s)
	for range 3 {
		b.ok("upgrade")
		blocks := p.blocks.Load()
		waitUntil(t, "I/O goes on", func() bool { return p.blocks.Load() > blocks+2 })
	}
	select {
	case err := <-locked:
		t.Errorf("between two programs of a server, a user gets the lock, error %v", err)
		locked <- err
	default:
	}
	m.kill()
	if err := <-locked; err != nil {
		t.Fatal(err)
	}
	m = b.serve("--on-crash=reissue")
	blocks := p.blocks.Load()
	waitUntil(t, "I/O goes on", func() bool { return p.blocks.Load() > blocks+2 })
	b.end(p)
	m.serves(s)
	b.del(s.Device)
}

// A server later takes over a device that it could not take over at its start. Meanwhile
// it serves the other devices.
func TestKernelServeTriesAgain(t *testing.T) {
	b := kernelBed(t)
	m := b.serve("--on-crash=reissue")
	missing, works := b.add(b.image(1<<20)), b.add(b.image(1<<20))
	p := b.pulse(missing)
	m.kill()
	moved := missing.File + ".moved"
	if err := os.Rename(missing.File, moved); err != nil {
		t.Fatal(err)
	}
	log := t.TempDir() + "/log"
	started := time.Now()
	m = b.serve("--on-crash=reissue", "--log-file", log)
	m.serves(works)
	b.works(works)
	if now := b.list(missing.Device)[0]; now.State != "quiesced" {
		t.Errorf("without its file, the device is %s after %v", now.State, time.Since(started))
	}
	if text, err := os.ReadFile(log); err != nil || !strings.Contains(string(text), missing.File) {
		t.Errorf("the log, error %v, does not name %s: %s", err, missing.File, text)
	}
	// The next program also tries again.
	b.ok("upgrade")
	if err := os.Rename(moved, missing.File); err != nil {
		t.Fatal(err)
	}
	blocks := p.blocks.Load()
	waitUntil(t, "I/O goes on", func() bool { return p.blocks.Load() > blocks+2 })
	b.end(p)
	m.serves(works, missing)
	b.del("--all")
}

// The server does not take over another device that has got the number, not even one of
// the same file.
func TestKernelServeTriesItsOwn(t *testing.T) {
	b := kernelBed(t)
	m := b.serve("--on-crash=reissue")
	s := b.add(b.image(1 << 20))
	m.kill()
	moved := s.File + ".moved"
	if err := os.Rename(s.File, moved); err != nil {
		t.Fatal(err)
	}
	log := t.TempDir() + "/log"
	m = b.serve("--on-crash=reissue", "--log-file", log)
	b.del("--force", s.Device)
	other := b.add("--standalone", "--on-crash=reissue", "--id", fmt.Sprint(s.ID), moved)
	b.killServer(other)
	if err := os.Rename(moved, s.File); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, "the server gives up", func() bool {
		text, err := os.ReadFile(log)
		return err == nil && strings.Contains(string(text), "another device has its number now")
	})
	b.waits(other)
	b.del("--force", other.Device)
	m.stop()
}

// A second server of a file is refused under any name of the file, until the first has
// ended.
func TestKernelFileHasOneServer(t *testing.T) {
	b := kernelBed(t)
	image := b.image(1 << 20)
	link := image + ".link"
	if err := os.Link(image, link); err != nil {
		t.Fatal(err)
	}
	for _, first := range [][]string{{}, {"--read-only"}} {
		s := b.add(append(first, image)...)
		b.run("add", link).fails(t, 1, link, "already in use", "hint: --shared")
		if len(first) > 0 {
			b.del(b.add("--read-only", link).Device)
		}
		b.del(s.Device)
		b.del(b.add(link).Device)
	}
	s := b.add(image)
	b.killServer(s)
	var next client.Device
	waitUntil(t, "the killed server has let go", func() bool {
		r := b.run("add", "--json", link)
		if r.status == 0 {
			b.decode(r.out, &next)
		}
		return r.status == 0
	})
	b.del(next.Device)
	b.del(s.Device)
}
