package e2e

import (
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// del refuses a device that is open or mounted, unless --force is given.
func TestKernelDelInUse(t *testing.T) {
	b := kernelBed(t, ublktest.Waits)
	file := b.image(64 << 20)
	s := b.add(file)
	opened, err := os.Open(s.Device)
	if err != nil {
		t.Fatal(err)
	}
	defer opened.Close()
	b.inUse(s)
	opened.Close()
	b.tool("mkfs.ext4", "-q", s.Device)
	dir := t.TempDir()
	b.tool("mount", s.Device, dir)
	defer func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }()
	b.inUse(s)
	if err := os.WriteFile(dir+"/file", make([]byte, 1<<20), 0o600); err != nil {
		t.Errorf("after del was refused: %v", err)
	}
	b.ok("del", "--force", s.Device)
	if list := b.list(); len(list) > 0 || len(servers(t)) > 0 {
		t.Errorf("left are %+v, servers %v", list, servers(t))
	}
	if err := unix.Unmount(dir, 0); err != nil {
		t.Error(err)
	}
}

// inUse checks that del refuses a device and changes nothing.
func (b *bed) inUse(s client.Device) {
	b.Helper()
	for _, args := range [][]string{{"del", s.Device}, {"del", s.File}, {"del", "--all"}} {
		b.run(args...).fails(b, 1, s.Device, "in use", "hint: --force")
	}
	list := b.list()
	if len(list) != 1 || list[0].State != "live" || list[0].PID != s.PID {
		b.Errorf("after del was refused: %+v", list)
	}
}

// del of several devices removes the others if one of them is in use.
func TestKernelDelSeveral(t *testing.T) {
	b := kernelBed(t, ublktest.Waits)
	var devices []client.Device
	for range 3 {
		devices = append(devices, b.add(b.image(1<<20)))
	}
	opened, err := os.Open(devices[1].Device)
	if err != nil {
		t.Fatal(err)
	}
	defer opened.Close()
	b.run("del", "--all").fails(t, 1, devices[1].Device, "in use")
	if list := b.list(); len(list) != 1 || list[0].ID != devices[1].ID {
		t.Errorf("left are %+v", list)
	}
	opened.Close()
	b.del(devices[0].Device, devices[1].File, devices[2].Device)
}

// list shows the device of a killed server, and del removes it.
func TestKernelDelDead(t *testing.T) {
	b := kernelBed(t)
	file := b.image(1 << 20)
	for _, how := range []string{"device", "file", "all"} {
		s := b.add(file)
		b.killServer(s)
		list := b.list()
		if len(list) != 1 || list[0].State != "dead" || list[0].PID != 0 || list[0].File != file {
			t.Errorf("list is %+v", list)
		}
		b.del(map[string]string{"device": s.Device, "file": file, "all": "--all"}[how])
		if list := b.list(); len(list) > 0 {
			t.Errorf("del leaves %+v", list)
		}
	}
}

// waitForEnd waits for the end of a process, and closes the descriptor.
func (b *bed) waitForEnd(pidfd int) {
	b.Helper()
	defer func() { _ = unix.Close(pidfd) }()
	fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(fds, int(waitLimit.Milliseconds()))
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			b.Fatal(err)
		case n == 0:
			ublktest.TimedOut(b, waitLimit, "the end of a process")
		}
		return
	}
}

// A signal ends a server in order.
func TestKernelServerSignal(t *testing.T) {
	b := kernelBed(t)
	file := b.image(1 << 20)
	before := things(t)
	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGHUP} {
		s := b.add(file)
		pidfd, err := unix.PidfdOpen(s.PID, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.PidfdSendSignal(pidfd, sig, nil, 0); err != nil {
			t.Fatal(err)
		}
		b.waitForEnd(pidfd)
		b.nothingSince(before)
	}
}

// The device of another program is neither listed nor changed.
func TestKernelForeign(t *testing.T) {
	b := kernelBed(t)
	file := b.image(1 << 20)
	dev, err := b.ctl.Add(ublk.Options{Queues: 1, Depth: 1, Tag: 4711})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := dev.Close(); err != nil {
			t.Error(err)
		}
	}()
	path := dev.BlockPath()
	b.run("del", path).fails(t, 1, path, "not a device of ublk-loop", "hint: the program that made it")
	b.run("del", "--force", path).fails(t, 1, path, "not a device of ublk-loop")
	b.run("list", path).fails(t, 1, path)
	b.del("--all")
	if list := b.list(); len(list) > 0 {
		t.Errorf("list is %+v", list)
	}
	if _, err := b.ctl.Info(dev.Info().ID); err != nil {
		t.Errorf("the device is gone: %v", err)
	}
	b.run("add", "--id", path[len("/dev/ublkb"):], file).fails(t, 1, file, path, "hint: --id")
}

// A short opener, such as udev, does not prevent the removal of a device.
func TestKernelDelShortOpener(t *testing.T) {
	b := kernelBed(t)
	file := b.image(1 << 20)
	for range 3 {
		s := b.add(file)
		opener := exec.Command("sh", "-c", "exec 3<$0; echo; sleep 0.3", s.Device)
		out, err := opener.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := opener.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := out.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		b.del(s.Device)
		if err := opener.Wait(); err != nil {
			t.Error(err)
		}
	}
}
