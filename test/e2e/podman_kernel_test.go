package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// withPodman runs a test with podman and some ways of giving a container its root:
// "ublk-runc" and "hooks-runc", and the same with crun. With "-trixie" all programs come
// from that release. A call takes seconds in emulation, so that each test has only the
// ways that are most likely to fail.
func withPodman(t *testing.T, ways []string, test func(*podman)) {
	for _, way := range ways {
		t.Run(way, func(t *testing.T) {
			dir := engines(t) // mounts the engines before the test counts mounts
			how, program, _ := strings.Cut(way, "-")
			runtime, release := program, ""
			if i := strings.IndexByte(program, '-'); i > 0 {
				runtime, release = program[:i], program[i:]
				program = filepath.Join(dir, program)
			}
			test(kernelBed(t).wrap(program, hooked).podman(runtime, release, how == "hooks"))
		})
	}
}

func TestKernelPodmanLife(t *testing.T) {
	ublktest.Require(t, ublktest.Engines, ublktest.Once)
	withPodman(t, []string{"ublk-runc", "hooks-crun", "ublk-crun-trixie", "hooks-runc-trixie"}, func(p *podman) {
		ask := asked{"image": p.image}
		r := p.calls(append(p.container("run", ask, "--rm"), "sh", "-c", "cat /content /proc/mounts; exit 42")...)
		if r.status != 42 || !strings.HasPrefix(r.out, "of the image\n") || !strings.Contains(r.out, " / squashfs ro,") {
			p.Errorf("exit status %d, the container prints %s%s", r.status, r.out, r.err)
		}
		for _, masked := range []string{" /proc/keys ", " /proc/sys proc ro"} {
			if !strings.Contains(r.out, masked) {
				p.Errorf("%q is not masked:\n%s", masked, r.out)
			}
		}
		p.nothingHooked()

		p.does(append(p.container("create", ask, "--name", "c"), "sleep", "1000")...)
		p.nothingHooked()
		p.does("start", "c")
		p.devicesAre(1)
		if n := p.hookMounts(); n != 0 {
			p.Errorf("%d mounts of hooks after the start", n)
		}
		p.does("restart", "--time", "0", "c")
		p.devicesAre(1)
		if out := p.does("exec", "c", "cat", "/content"); out != "of the image\n" {
			p.Errorf("exec prints %q", out)
		}
		if r := p.calls(append(p.container("run", ask, "--name", "c"), "true")...); r.status != 125 {
			p.Errorf("a second container of the same name: exit status %d: %s", r.status, r.err)
		}
		p.devicesAre(1)
		p.does("stop", "--time", "0", "c")
		p.nothingHooked()

		p.does("start", "c")
		p.kills("c", "Pid")
		p.nothingLeft()
		p.does("wait", "c")
		p.does("start", "c")
		p.devicesAre(1)
		p.kills("c", "ConmonPid", "Pid")
		p.nothingLeft()
		_ = p.calls("rm", "--force", "--time", "0", "c")
		p.sweepAll()
		p.nothingHooked()
	})
}

func TestKernelPodmanFails(t *testing.T) {
	ublktest.Require(t, ublktest.Engines, ublktest.Once)
	withPodman(t, []string{"ublk-crun", "hooks-crun", "hooks-crun-trixie"}, func(p *podman) {
		if r := p.fails(append(p.container("run", asked{"image": p.image}, "--rm"), "/not/there")...); r.status != 127 {
			p.Errorf("a command that is not there: exit status %d: %s", r.status, r.err)
		}
		p.fails(append(p.container("run", asked{"image": p.image}, "--rm", "--workdir", "/not/there"), "true")...)
		p.fails(append(p.container("run", asked{"image": p.image}, "--rm", "--user", "nobody-here"), "true")...)
		p.write(p.images+"/zeros.img", strings.Repeat("\x00", 1<<20), 0o644)
		for image, text := range map[string]string{p.images + "/nothing": "not there", p.images + "/zeros.img": "no file system"} {
			r := p.fails(append(p.container("run", asked{"image": image}, "--rm"), "true")...)
			if r.status != 125 && r.status != 126 {
				p.Errorf("exit status %d: %s", r.status, r.err)
			}
			told := r.err
			if !strings.HasPrefix(p.runtime, "ublk-") { // podman discards the output of hooks
				told = p.log.line()
			}
			if !strings.Contains(told, "rootfs image unavailable: ") || !strings.Contains(told, text) {
				p.Errorf("%s: podman says %s%s", image, r.err, told)
			}
		}
	})
}

// podman, its monitor and the runtime are killed at any moment, and nothing is left.
func TestKernelPodmanKilled(t *testing.T) {
	ublktest.Require(t, ublktest.Engines, ublktest.Once, ublktest.Soak)
	withPodman(t, []string{"ublk-crun", "hooks-runc"}, func(p *podman) {
		run := func(name string) []string {
			return append(p.container("run", asked{"image": p.image}, "--detach", "--name", name), "sleep", "1000")
		}
		full := p.calls(run("whole")...).took
		p.does("rm", "--force", "--time", "0", "whole")
		n := ublktest.Kills(p, 2, 3)
		ublktest.UntilHit(p, "kill of podman or its monitor", n, (n+1)/2, 8*n, func(i int) (hit bool) {
			name := fmt.Sprint("k", i)
			cmd := p.command(run(name)...)
			cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
			if err := cmd.Start(); err != nil {
				p.Fatal(err)
			}
			time.Sleep(ublktest.Moment(full, i))
			monitors := processesNamed(p, "conmon")
			for _, pid := range append(monitors, -cmd.Process.Pid) {
				_ = unix.Kill(pid, unix.SIGKILL)
			}
			_ = cmd.Wait()
			_ = p.calls("rm", "--force", "--time", "0", name)
			p.killContainers()
			p.sweepAll()
			p.nothingHooked()
			return !cmd.ProcessState.Exited() || len(monitors) > 0
		})
	})
}

// Two containers run at the same time, with options that change a container's view of its
// root.
func TestKernelPodmanTwo(t *testing.T) {
	ublktest.Require(t, ublktest.Engines, ublktest.Once)
	withPodman(t, []string{"hooks-runc"}, func(p *podman) {
		volume := p.TempDir()
		ask := asked{"image": p.image, "overlay": "tmpfs:4m"}
		done := make(chan result)
		for _, name := range []string{"a", "b"} {
			go func() {
				done <- p.calls(append(p.container("run", ask, "--name", name, "--detach", "--user", "1234:1234", "--volume", volume+":/volume:rshared"), "sleep", "1000")...)
			}()
		}
		for range 2 {
			if r := <-done; r.status != 0 {
				p.Fatalf("run: exit status %d: %s", r.status, r.err)
			}
		}
		p.devicesAre(2)
		if n := p.hookMounts(); n != 0 {
			p.Errorf("%d mounts of hooks after the start", n)
		}
		// A new mount in a volume appears in the running containers.
		if err := os.Mkdir(volume+"/sub", 0o755); err != nil {
			p.Fatal(err)
		}
		p.tool("mount", "-t", "tmpfs", "x", volume+"/sub")
		defer p.tool("umount", volume+"/sub")
		p.write(volume+"/sub/file", "of the volume\n", 0o644)
		const script = "cat /content /volume/sub/file; grep Uid: /proc/self/status; echo x >/tmp/new && cat /tmp/new"
		out := p.does("exec", "a", "sh", "-c", script)
		if !strings.HasPrefix(out, "of the image\nof the volume\n") || !strings.Contains(out, "Uid:\t1234\t1234\t1234") || !strings.HasSuffix(out, "x\n") {
			p.Errorf("exec prints %s", out)
		}
		if r := p.calls("exec", "b", "cat", "/tmp/new"); r.status == 0 {
			p.Error("one container has what the other has written")
		}
		p.does("rm", "--force", "--time", "0", "a")
		p.devicesAre(1)
		p.does("rm", "--force", "--time", "0", "b")
		p.hookDirs(0)
		p.devicesAre(0)
	})
}
