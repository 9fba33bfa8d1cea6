package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// mountTmpfs mounts a tmpfs, which the process of a device does not see.
func (b *bed) mountTmpfs(options string) string {
	b.Helper()
	dir := b.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			b.Error(err)
		}
	})
	return dir
}

// imageIn makes a file in a directory.
func (b *bed) imageIn(dir string, size int64) string {
	b.Helper()
	path := filepath.Join(dir, "base")
	if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, size)); err != nil {
		b.Fatal(err)
	}
	return path
}

// names returns the names of the files in a directory.
func (b *bed) names(dir string) (names []string) {
	b.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		b.Fatal(err)
	}
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names
}

// A device with a process of its own forks, although the process does not see the files by their
// paths. The second device gets a process of its own, too. Each device has its changes after its
// server was killed and recovered, also those from after the fork.
func TestKernelForkOwnProcess(t *testing.T) {
	b := kernelBed(t, ublktest.OldestKernel)
	dir := b.mountTmpfs("size=128m")
	store := func(name string) string { return filepath.Join(dir, name) }
	first := b.add(b.imageIn(dir, 8<<20), "--cow", store("first"), "--on-crash", "reissue")
	b.checkApart(first)
	b.writeBlock(first, 3, 100)
	paths := strings.Fields(b.ok("fork", first.Device, store("after"), store("other")))
	if len(paths) != 2 || paths[0] != first.Device {
		t.Fatalf("fork prints %q", paths)
	}
	second := b.list(paths[1])[0]
	if second.PID == first.PID || second.OnCrash != "reissue" {
		t.Errorf("the second device is %+v", second)
	}
	b.writeBlock(first, 4, 101)
	b.writeBlock(second, 4, 102)
	b.ok("fork", first.Device, store("last"))
	b.writeBlock(first, 5, 103)
	for _, s := range []client.Device{first, second} {
		b.checkApart(s)
		b.killServer(s)
		b.checkApart(b.recover(s))
		b.hasBlock(s, 3, 100)
	}
	b.hasBlock(first, 4, 101)
	b.hasBlock(first, 5, 103)
	b.hasBlock(second, 4, 102)
	b.hasBlock(second, 5, 0)
	b.ok("fork", second.Device, store("again"))
	for device, files := range map[string][]string{first.Device: {"base", "first", "after", "last"}, second.Device: {"base", "first", "other", "again"}} {
		var got []string
		for _, f := range b.list(device)[0].Files {
			got = append(got, filepath.Base(f.File))
		}
		if !slices.Equal(got, files) {
			t.Errorf("%s has the files %q, want %q", device, got, files)
		}
	}
	if got := b.names(dir); len(got) != 6 {
		t.Errorf("the files are %q", got)
	}
	b.run("add", store("base"), "--cow", store("after")).fails(t, 1, store("after"))
	b.del(first.Device, second.Device)
}

// A fork that is refused leaves no file, and the device as it was.
func TestKernelForkRefused(t *testing.T) {
	b := kernelBed(t, ublktest.OldestKernel)
	dir, small, readOnly := b.mountTmpfs("size=64m"), b.mountTmpfs("size=4k"), b.mountTmpfs("size=64k")
	if err := unix.Mount("", readOnly, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	base := b.imageIn(dir, 1<<20)
	store := func(name string) string { return filepath.Join(dir, name) }
	test := func(args ...string) {
		device := b.add(append([]string{base, "--cow", store("store") + ",chunk=4K"}, args...)...)
		b.writeBlock(device, 1, 7)
		before := b.names(dir)
		refused := func(want string, paths ...string) {
			t.Helper()
			b.run(append([]string{"fork", device.Device}, paths...)...).fails(t, 1, want)
			if got := slices.Concat(b.names(dir), b.names(small)); !slices.Equal(got, before) {
				t.Errorf("fork to %q leaves %q, before there was %q", paths, got, before)
			}
			if now := b.list(device.Device)[0]; now.Table != device.Table {
				t.Errorf("after fork to %q the table is %q", paths, now.Table)
			}
		}
		refused("file exists", store("store"))
		refused("file exists", store("new"), base)
		refused("file exists", store("new"), store("new"))
		refused("read-only", filepath.Join(readOnly, "new"))
		refused("no space", filepath.Join(small, "new"))
		refused("no space", store("new"), filepath.Join(small, "new"))
		refused("no such file", filepath.Join(dir, "missing", "new"))
		b.hasBlock(device, 1, 7)
		b.writeBlock(device, 2, 8)
		b.del(device.Device)
		if err := os.Remove(store("store")); err != nil {
			t.Fatal(err)
		}
		b.ok("cow", "thaw", base)
	}
	test("--standalone")
	s := b.serve()
	test()
	s.stop()
	for _, args := range [][]string{{base}, {base, "--cow", store("store") + ",transient"}, {base, "--cow", store("store"), "--read-only"}} {
		device := b.add(args...)
		before := b.names(dir)
		b.run("fork", device.Device, store("new")).fails(t, 1, device.Device)
		if got := b.names(dir); !slices.Equal(got, before) {
			t.Errorf("fork of %q leaves %q", args, got)
		}
		b.del(device.Device)
		if err := os.Remove(store("store")); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		b.ok("cow", "thaw", base)
	}
}

// The last fork of a long chain is refused, and leaves no file.
func TestKernelForkOfLongChain(t *testing.T) {
	b := kernelBed(t)
	dir := b.mountTmpfs("size=64m")
	store := func(i int) string { return filepath.Join(dir, string(rune('A'+i))) }
	device := b.add(b.imageIn(dir, 1<<20), "--cow", store(0)+",chunk=4K")
	for i := 1; ; i++ {
		before := b.names(dir)
		r := b.run("fork", device.Device, store(i))
		if r.status == 0 {
			b.writeBlock(device, int64(i), byte(i))
			continue
		}
		r.fails(t, 1, "limit exceeded")
		if got := b.names(dir); !slices.Equal(got, before) || i < 20 {
			t.Errorf("fork %d leaves %q, before there was %q", i, got, before)
		}
		for n := 1; n < i; n++ {
			b.hasBlock(device, int64(n), byte(n))
		}
		break
	}
	b.del(device.Device)
}

// A fork that is killed before the server has read its request leaves no file, unless the device
// has it.
func TestKernelForkKilled(t *testing.T) {
	b := kernelBed(t, ublktest.OldestKernel)
	dir := b.mountTmpfs("size=64m")
	store := func(name string) string { return filepath.Join(dir, name) }
	device := b.add(b.imageIn(dir, 1<<20), "--cow", store("old"))
	signal := func(pid int, sig unix.Signal) {
		if err := unix.Kill(pid, sig); err != nil {
			t.Fatal(err)
		}
	}
	signal(device.PID, unix.SIGSTOP)
	cmd := b.command("fork", device.Device, store("new"))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, "the command has the new file", func() bool { return hasFileIn(cmd.Process.Pid, dir) })
	names := b.names(dir)
	signal(cmd.Process.Pid, unix.SIGKILL)
	_ = cmd.Wait() // it was killed
	signal(device.PID, unix.SIGCONT)
	if !slices.Equal(names, []string{"base", "old"}) {
		t.Errorf("before the server has the request, there is %q", names)
	}
	// The next request comes when the server has finished with the last one.
	b.run("fork", device.Device, store("other"), store("old")).fails(t, 1, "file exists")
	b.ok("fork", device.Device, store("last"))
	has := len(b.list(device.Device)[0].Files) == 4
	if there := slices.Contains(b.names(dir), "new"); there != has {
		t.Errorf("the device has the new store: %v; the new file is there: %v", has, there)
	}
	b.del(device.Device)
}

// hasFileIn reports whether a process has an open file in a directory.
func hasFileIn(pid int, dir string) bool {
	links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		return false
	}
	return slices.ContainsFunc(links, func(link string) bool {
		target, err := os.Readlink(link)
		return err == nil && strings.HasPrefix(target, dir+"/")
	})
}
