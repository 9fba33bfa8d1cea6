package e2e

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// obstruct keeps the state of a device from being written, until the returned function is
// called: a directory is where the next state is written.
func (b *bed) obstruct(id string) (clear func()) {
	b.Helper()
	dir := "/run/ublk-loop/" + id + ".json.new"
	err := errors.Join(os.MkdirAll(dir, 0o700), os.WriteFile(filepath.Join(dir, "x"), nil, 0o600))
	if err != nil {
		b.Fatal(err)
	}
	return func() {
		if err := os.RemoveAll(dir); err != nil {
			b.Fatal(err)
		}
	}
}

// What a command has done when the state cannot be written, and what it says.
func TestKernelStatusWithoutState(t *testing.T) {
	b := kernelBed(t, ublktest.OldestAndNewest)
	file := b.image(8 << 20)
	clear := b.obstruct("9")
	before := things(t)
	b.run("add", "--id=9", file).fails(t, 1, file, "write state")
	b.nothingSince(before)
	clear()

	s := b.add("--id=9", "--on-crash=reissue", "--sizelimit=4M", file)
	clear = b.obstruct("9")
	if r := b.run("resize", "9", "8M"); r.status == 0 {
		if now := b.list("9")[0]; now.Size != 8<<20 {
			t.Errorf("resize succeeds, and the size is %d", now.Size)
		}
	} else {
		r.fails(t, 1, "resize "+s.Device, "not supported") // before Linux 6.16
		if now := b.list("9")[0]; now.Size != 4<<20 {
			t.Errorf("resize fails, and the size is %d", now.Size)
		}
	}
	b.killServer(s)
	b.run("recover", "9").fails(t, 1, "recover "+s.Device, "write state")
	b.waits(s)
	r := b.run("del", "9")
	r.fails(t, 1, "remove state")
	clear()
	b.del("9") // what was left
}

// Of several devices, each is tried, each failure is reported, and the exit status tells
// of any.
func TestKernelStatusOfSeveral(t *testing.T) {
	b := kernelBed(t)
	first, second, third := b.add(b.image(1<<20)), b.add(b.image(1<<20)), b.add(b.image(1<<20))
	f, err := os.OpenFile(second.Device, os.O_RDONLY|unix.O_EXCL, 0)
	if err != nil {
		t.Fatal(err)
	}
	r := b.run("del", first.Device, second.Device, third.Device)
	r.fails(t, 1, second.Device)
	if list := b.list(); len(list) != 1 || list[0].ID != second.ID {
		t.Errorf("left are %+v", list)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	b.works(second)
	b.del(second.Device)
}

// A server that does not end after its device is stopped: del says what is gone and what
// is not.
func TestKernelStatusOfStoppedServer(t *testing.T) {
	b := kernelBed(t, ublktest.Once, ublktest.Waits)
	asked, forced := b.add("--standalone", b.image(1<<20)), b.add("--standalone", b.image(1<<20))
	b.suspend(asked)
	b.suspend(forced)
	removed := make(chan result, 1)
	go func() { removed <- b.run("del", "--force", forced.Device) }() // received below; both wait for 20 s
	b.run("del", asked.Device).fails(t, 1, asked.Device, "the disk is gone, but its server has not ended", "hint: --force")
	if _, err := os.Stat(asked.Device); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the disk is not gone: error %v", err)
	}
	r := <-removed
	r.succeeds(t)
	for _, pid := range b.processes(asked) {
		if err := unix.Kill(pid, unix.SIGCONT); err != nil {
			t.Fatal(err)
		}
	}
	waitUntil(t, "the end of the server", func() bool { return len(servers(t)) == 0 })
}
