package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/loop/cowfile"
	"github.com/ublk-loop/ublk-loop/ublk/uapi"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// isApart reports whether another process serves the requests of a server of many devices. It checks that the
// driver decides that.
func (b *bed) isApart(server int) bool {
	b.Helper()
	features, err := b.ctl.Features()
	if err != nil {
		b.Fatal(err)
	}
	is := b.apartOf(server) != 0
	if is != features.Has(uapi.UBLK_F_QUIESCE) {
		b.Errorf("another process serves: %v, with features %v", is, features)
	}
	return is
}

// apart returns the process that serves the requests of the server's devices.
func (m *many) apart() int {
	m.b.Helper()
	return m.b.apartOfDevice(client.Device{PID: m.pid()})
}

// killApart kills the process that serves the requests. The server must end as after a crash.
func (m *many) killApart() {
	m.b.Helper()
	if err := unix.Kill(m.apart(), unix.SIGKILL); err != nil {
		m.b.Fatal(err)
	}
	const crashed = 4
	if err := <-m.ended; err == nil {
		m.b.Error("a server whose devices are not served has ended in order")
	}
	if code := m.cmd.ProcessState.ExitCode(); code != crashed {
		m.b.Errorf("the server ends with status %d, want %d\n%s", code, crashed, m.errOut.String())
	}
	m.cmd = nil
}

// rings returns the number of a process's open rings.
func (b *bed) rings(pid int) (n int) {
	b.Helper()
	return b.openFiles(pid, "[io_uring]")
}

// openFiles returns the number of a process's descriptors of files whose names have a part.
func (b *bed) openFiles(pid int, part string) (n int) {
	b.Helper()
	links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil || len(links) == 0 {
		b.Fatalf("descriptors of process %d: %q, error %v", pid, links, err)
	}
	for _, link := range links {
		if target, _ := os.Readlink(link); strings.Contains(target, part) { // nothing if it was closed
			n++
		}
	}
	return n
}

// One process without privileges serves the requests of all devices of a server: of files with and without
// encryption, and of tables. When devices end, the process has nothing of them. The kernel looks for the
// partitions of a device only if the server itself serves it.
func TestKernelServeApart(t *testing.T) {
	b := kernelBed(t, ublktest.EveryKernel)
	m := b.serve()
	if !b.isApart(m.pid()) {
		b.works(b.add(b.image(1 << 20)))
		return
	}
	pid := m.apart()
	b.checkConfined(pid, m.pid())
	b.checkRingsLimited(pid, m.pid(), b.ringServers())
	b.checkProtected(m.pid())
	file, _ := b.keyFile(64)
	names := []string{"disk.img", "/dev/ublkc", "/locks/", "[io_uring]"}
	for range 3 {
		devices := []client.Device{
			b.add(b.image(1 << 20)), b.add(b.image(1 << 20)), b.add("--transfer=aes-xts-plain64", "--key-file", file, b.image(1<<20)),
			b.addTable(fmt.Sprintf("t,,,rw,0 2048 linear %s 0,2048 2048 zero", b.image(1<<20))),
		}
		for _, s := range devices[:3] {
			b.works(s)
		}
		b.roundTripSmall(devices[3].Device)
		if n := b.rings(m.pid()); n != 1 {
			t.Errorf("the server has %d rings, want that for control", n)
		}
		if pid != m.apart() {
			t.Error("another process serves")
		}
		for _, name := range names {
			if b.openFiles(pid, name) == 0 {
				t.Errorf("it has no file %q open", name)
			}
		}
		for _, s := range devices {
			b.del(s.Device)
		}
		// Threads close their rings a moment after the end of their last queue.
		waitUntil(t, "it has closed all of the devices", func() bool {
			return !slices.ContainsFunc(names, func(name string) bool { return b.openFiles(pid, name) > 0 })
		})
	}
	s := b.add("--partscan", b.image(1<<20))
	if n := b.rings(m.pid()); n < 2 {
		t.Errorf("the server has %d rings, and a device with partitions", n)
	}
	b.works(s)
	b.del(s.Device)
}

// If the process that serves the requests is killed, the server removes devices that do not outlive it, and
// ends as after a crash. The next server takes over the others.
func TestKernelServeApartKilled(t *testing.T) {
	b := kernelBed(t, ublktest.EveryKernel)
	m := b.serve("--on-crash=reissue")
	if !b.isApart(m.pid()) {
		return
	}
	s, fails, table := b.add(b.image(1<<20)), b.add("--on-crash=fail", b.image(1<<20)), b.addTable("t,,,rw,0 2048 linear "+b.image(1<<20)+" 0")
	p, q := b.pulse(s), b.pulse(table)
	for range 2 {
		m.killApart()
		list := b.list()
		if len(list) != 2 || list[0].ID == fails.ID || list[1].ID == fails.ID {
			t.Errorf("left are %+v, want %s and %s", list, s.Device, table.Device)
		}
		b.waits(s)
		b.waits(table)
		m = b.serve()
		m.serves(s, table)
		for _, p := range []*pulse{p, q} {
			was := p.blocks.Load()
			waitUntil(t, "I/O goes on", func() bool { return p.blocks.Load() > was+2 })
		}
	}
	b.end(p)
	b.end(q)
}

// The supervisor starts another server when the process that serves the requests has been killed.
func TestKernelSuperviseApart(t *testing.T) {
	b := kernelBed(t)
	m := b.serve("--supervise")
	p := b.pulse(b.add(b.image(1 << 20)))
	was := b.list()[0].PID
	if !b.isApart(was) {
		b.end(p)
		return
	}
	if err := unix.Kill(b.apartOf(was), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, "another serves", func() bool {
		now := b.list()[0]
		return now.State == "live" && now.PID != was && now.PID != 0
	})
	blocks := p.blocks.Load()
	waitUntil(t, "I/O goes on", func() bool { return p.blocks.Load() > blocks+2 })
	b.end(p)
	m.stop()
}

// The process that serves the requests ends with its server, also if that is killed. After an upgrade
// another one serves, and nothing is left of the first.
func TestKernelServeApartEnds(t *testing.T) {
	b := kernelBed(t, ublktest.EveryKernel)
	m := b.serve("--on-crash=reissue")
	if !b.isApart(m.pid()) {
		return
	}
	s := b.add(b.image(1 << 20))
	first := m.apart()
	process, err := unix.PidfdOpen(first, 0)
	if err != nil {
		t.Fatal(err)
	}
	b.ok("upgrade")
	b.waitForEnd(process)
	waitUntil(t, "nothing is left of it", func() bool {
		_, err := os.Stat(fmt.Sprintf("/proc/%d", first))
		return os.IsNotExist(err)
	})
	b.checkConfined(m.apart(), m.pid())
	b.checkProtected(m.pid())
	b.works(s)
	process = b.stopped(m.apart())
	m.kill()
	b.waitForEnd(process)
	m = b.serve()
	b.works(s)
	if process, err = unix.PidfdOpen(m.apart(), 0); err != nil {
		t.Fatal(err)
	}
	m.stop()
	b.waitForEnd(process)
}

// A device of a server changes over to other files below its store. The server and the process that serves
// the requests close the replaced file, and have the other one after a crash.
func TestKernelServeApartReload(t *testing.T) {
	b := kernelBed(t)
	m := b.serve("--on-crash=reissue")
	if !b.isApart(m.pid()) {
		return
	}
	dir := b.mountTmpfs("size=128m")
	store := func(name string) string { return filepath.Join(dir, name) }
	s := b.add(b.imageIn(dir, 8<<20), "--cow", store("replaced"))
	b.writeBlock(s, 3, 100)
	b.del(strings.Fields(b.ok("fork", s.Device, store("after"), store("other")))[1])
	b.writeBlock(s, 4, 101)
	b.tool("cp", "--sparse=always", store("replaced"), store("instead"))
	table := strings.ReplaceAll(b.list(s.Device)[0].Table, store("replaced"), store("instead"))
	var files []*os.File
	for _, name := range []string{"base", "instead", "after"} {
		fd, err := unix.Open(store(name), unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		file := os.NewFile(uintptr(fd), store(name))
		defer func() { _ = file.Close() }()
		files = append(files, file)
	}
	c := client.New(client.DefaultSocket)
	if _, err := c.Reload(context.Background(), &s, table, files); !errors.Is(err, unix.ESTALE) { // s has the tables from before the fork
		t.Errorf("a late reload: error %v", err)
	}
	if _, err := c.Reload(context.Background(), &b.list(s.Device)[0], table, files); err != nil {
		t.Fatalf("%v: %s", err, m.errOut.String())
	}
	b.writeBlock(s, 5, 102)
	for _, pid := range m.processes() {
		if old, now := b.openFiles(pid, "replaced"), b.openFiles(pid, "instead"); old != 0 || now == 0 {
			t.Errorf("process %d has the replaced file open %d times, the other one %d times", pid, old, now)
		}
	}
	m.killApart()
	b.serve()
	for block, want := range map[int64]byte{3: 100, 4: 101, 5: 102} {
		b.hasBlock(s, block, want)
	}
	b.del(s.Device)
}

// An upgrade does not wait for a merge. The merge ends with the old program, and another one finishes it.
func TestKernelServeApartMergeUpgrade(t *testing.T) {
	b := kernelBed(t, ublktest.Soak)
	b.serve("--on-crash=reissue")
	const size, chunks = 32 << 20, 32 << 20 / 4096
	n := ublktest.Kills(b, 2, 2)
	ublktest.UntilHit(t, "the upgrade came within a merge", n, (n+1)/2, 10*n, func(int) bool {
		base := b.image(size)
		store := filepath.Join(filepath.Dir(base), "store")
		s := b.add(base, "--cow", store+",chunk=4K")
		want := b.fillDevice(s, size)
		defer func() { // the machine has little memory
			for _, path := range []string{base, store} {
				if err := os.Remove(path); err != nil {
					t.Error(err)
				}
			}
		}()
		ended := make(chan result, 1)
		go func() { ended <- b.run("merge", s.Device) }() // received below
		ublktest.Until(t, time.Minute, "chunks are merged", func() bool {
			info, err := cowfile.Inspect(store)
			if err != nil {
				t.Fatal(err)
			}
			return info.Chunks < chunks
		})
		if err := client.New(client.DefaultSocket).Upgrade(context.Background()); err != nil { // a command would start too late
			t.Fatal(err)
		}
		<-ended
		left, err := cowfile.Inspect(store)
		if err != nil {
			t.Fatal(err)
		}
		b.ok("merge", s.Device)
		if b.readFile(s.Device) != want {
			t.Error("the device has other data")
		}
		b.del(s.Device)
		if b.readFile(base) != want {
			t.Error("the base has other data")
		}
		return left.Chunks > 0
	})
}
