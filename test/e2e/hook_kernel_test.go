package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// The hooks' mount is in the host's namespace until the container has started. The device
// goes with the container.
func TestKernelHookLife(t *testing.T) {
	ublktest.Require(t, ublktest.Engines, ublktest.OldestAndNewest)
	everyRuntime(t, hooked, byHooks(func(w *wrapped) {
		image := w.imageOf("ext4", rootTree(w, "of the image\n"))
		bundle := w.bundle(asked{"image": image}, "sh", "-c", "cat /content /proc/mounts; exit 42")
		w.precreate(bundle)
		w.hookDirs(1)
		w.devicesAre(1)
		r := w.calls("run", "-b", bundle, "c")
		if r.status != 42 || !strings.HasPrefix(r.out, "of the image\n") || !strings.Contains(r.out, " / ext4 ro,") {
			w.Errorf("exit status %d, the container prints %s%s", r.status, r.out, r.err)
		}
		for _, masked := range []string{" /proc/keys ", " /proc/sys proc ro"} {
			if !strings.Contains(r.out, masked) {
				w.Errorf("%q is not masked:\n%s", masked, r.out)
			}
		}
		w.nothingLeft()

		// A writable root, and a killed container.
		sleeping := w.bundle(asked{"image": image, "options": "rw"}, "sleep", "1000")
		w.precreate(sleeping)
		if r := w.calls("create", "-b", sleeping, "c"); r.status != 0 {
			w.Fatalf("create: %s", r.err)
		}
		if r := w.calls("start", "c"); r.status != 0 {
			w.Fatalf("start: %s", r.err)
		}
		if n := w.hookMounts(); n != 0 {
			w.Errorf("%d mounts of hooks after the start", n)
		}
		w.sweepAll()
		w.devicesAre(1)
		if r := w.calls("exec", "c", "cat", "/content"); r.out != "of the image\n" {
			w.Errorf("exec prints %q, %s", r.out, r.err)
		}
		pid := w.pid("c")
		if pid <= 1 || unix.Kill(pid, unix.SIGKILL) != nil {
			w.Fatalf("process %d", pid)
		}
		w.nothingLeft()
		w.sweepAll()
		w.hookDirs(0)
		w.forget("c")
		w.tool("e2fsck", "-fn", image)
	}))
}

// The mount of a created container that has not been started is swept. The container can
// still start, because it has its own mount.
func TestKernelHookSweepsCreated(t *testing.T) {
	ublktest.Require(t, ublktest.Once)
	eachRuntime(t, hooked, byHooks(func(w *wrapped) {
		bundle := w.bundle(asked{"image": w.imageOf("squashfs", rootTree(w, "x"))}, "sleep", "1000")
		w.precreate(bundle)
		if r := w.calls("create", "-b", bundle, "c"); r.status != 0 {
			w.Fatalf("create: %s", r.err)
		}
		w.sweepAll()
		if n := w.hookMounts(); n != 0 {
			w.Errorf("%d mounts of hooks are left", n)
		}
		if r := w.calls("start", "c"); r.status != 0 {
			w.Errorf("start: %s", r.err)
		}
		if r := w.calls("exec", "c", "cat", "/content"); r.out != "x" {
			w.Errorf("exec prints %q, %s", r.out, r.err)
		}
		w.devicesAre(1)
		w.forget("c")
		w.nothingLeft()
	}))
}

func TestKernelHookRefused(t *testing.T) {
	w := kernelBed(t, ublktest.OldestAndNewest, ublktest.Waits).wrap("runc", `attach_timeout = "5s"`)
	log := systemLog(t)
	ask := func(a asked) string { return w.bundle(a, "true") }
	image := w.imageOf("ext4", rootTree(w, "x"))
	w.write(w.images+"/zeros.img", strings.Repeat("\x00", 1<<20), 0o644)
	w.server.stop()
	refused := func(bundle, text string) {
		t.Helper()
		r := w.runCommand(w.precreateCommand(bundle))
		r.fails(t, 1, "rootfs image unavailable: ", text)
		if strings.Count(r.err, "\n") != 1 || strings.Contains(r.err, "no such file or directory") {
			t.Errorf("errors are %q", r.err)
		}
		if line := log.line(); !strings.Contains(line, "ublk-loop") || !strings.Contains(line, text) {
			t.Errorf("the log has %q", line)
		}
		w.nothingHooked()
	}
	refused(ask(asked{"image": image}), "no server")
	w.server = w.serve()
	refused(ask(asked{"image": w.images + "/nothing"}), "not there")
	refused(ask(asked{"image": w.bin}), "not below a directory")
	refused(ask(asked{"image": w.images + "/zeros.img"}), "no file system")
	refused(ask(asked{"image": image, "options": "suid"}), "suid")
	refused(ask(asked{"image": image, "subdir": "/nothing"}), "not there")

	// An image that another container writes to.
	w.precreate(ask(asked{"image": image, "options": "rw"}))
	r := w.runCommand(w.precreateCommand(ask(asked{"image": image, "options": "rw"})))
	r.fails(t, 1, "in use")
	w.devicesAre(1)
	w.hookDirs(1)
	w.sweepAll()
	w.nothingHooked()

	// A configuration that asks for no image is not changed.
	plain := ask(nil)
	if r := w.runCommand(w.precreateCommand(plain)); r.status != 0 || r.out != w.readFile(plain+"/config.json") {
		t.Errorf("exit status %d, output %s", r.status, r.out)
	}
	w.run("hook", "poststop", "../ns").fails(t, 1, "../ns")
	// A failing poststart must not end the running container.
	if r := w.run("hook", "poststart", "../ns"); r.status != 0 || !strings.Contains(r.err, "../ns") {
		t.Errorf("exit status %d: %s", r.status, r.err)
	}
	if _, err := os.Stat(placesMount); err != nil {
		t.Error(err)
	}
}

func (b *bed) readFile(path string) string {
	b.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		b.Fatal(err)
	}
	return string(text)
}

// If the engine ends before it reads the answer, the hook leaves nothing.
func TestKernelHookEngineGone(t *testing.T) {
	w := kernelBed(t, ublktest.Once).wrap("runc")
	r, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	_ = r.Close()
	defer out.Close()
	cmd := w.precreateCommand(w.bundle(asked{"image": w.imageOf("squashfs", rootTree(w, "x"))}, "true"))
	var text strings.Builder
	cmd.Stdout, cmd.Stderr = out, &text
	if err := cmd.Run(); err == nil || cmd.ProcessState.ExitCode() != 1 || !strings.Contains(text.String(), "broken pipe") {
		t.Errorf("error %v: %s", err, text.String())
	}
	w.nothingHooked()
}

// Without a server, poststop and sweep end, because a child waits for the file system. They leave no mount and no
// directory, and say what they leave.
func TestKernelHookEndsWithoutServer(t *testing.T) {
	w := kernelBed(t, ublktest.Once, ublktest.Waits).wrap("crun")
	w.runtime = w.real
	w.server.stop()
	w.server = w.serve("--on-crash=reissue")
	image := w.imageOf("ext4", rootTree(w, "x"))
	other := filepath.Join(filepath.Dir(image), "other")
	w.tool("cp", image, other)
	w.precreate(w.bundle(asked{"image": image, "options": "rw"}, "true"))
	name := filepath.Base(w.hookDirs(1)[0])
	w.precreate(w.bundle(asked{"image": other, "options": "rw"}, "true"))
	w.server.kill()
	ended := make(chan result, 2)
	go func() { ended <- w.runCommand(w.command("hook", "poststop", name)) }()
	waitUntil(t, "the first mount has gone", func() bool { return w.hookMounts() == 1 })
	go func() { ended <- w.runCommand(w.command("hook", "sweep", "--older-than", "0s")) }()
	over := time.NewTimer(time.Minute)
	for range 2 {
		select {
		case r := <-ended:
			if r.status != 1 || !strings.Contains(r.err, "its device does not answer within 20s; its file system stays") {
				t.Errorf("exit status %d, %s", r.status, r.err)
			}
		case <-over.C:
			over.Reset(0)
			t.Error("a hook waits for a server")
		}
	}
	if !t.Failed() {
		w.hookDirs(0)
	}
	w.server = w.serve("--on-crash=reissue")
	waitUntil(t, "the children have ended", func() bool { return len(w.list()) == 0 })
	w.nothingHooked()
}

// later returns a command that runs with a clock that is ahead (time_namespaces(7)).
func later(cmd *exec.Cmd, d time.Duration) *exec.Cmd {
	ahead := exec.Command("unshare", append([]string{"--time", "--fork", "--monotonic", fmt.Sprint(int(d.Seconds()))}, cmd.Args...)...)
	ahead.Env, ahead.Dir, ahead.Stdin = cmd.Env, cmd.Dir, cmd.Stdin
	return ahead
}

// The remains of failed starts are removed at a later start, or by hand.
func TestKernelHookSweep(t *testing.T) {
	w := kernelBed(t, ublktest.OldestAndNewest).wrap("crun", `sweep_after = "20m"`)
	w.runtime = w.real
	image := w.imageOf("ext4", rootTree(w, "x"))
	ask := func() string { return w.bundle(asked{"image": image, "options": "rw"}, "true") }
	w.precreate(ask())
	old := w.hookDirs(1)[0]
	w.runCommand(later(w.command("hook", "sweep"), 18*time.Minute)).succeeds(t)
	if n := w.hookMounts(); n != 1 {
		t.Errorf("%d mounts are left, of one that is young", n)
	}

	// Directories with other names are not changed, even if they are mount points.
	for _, name := range []string{"other", strings.ReplaceAll(filepath.Base(old), "-", "_"), filepath.Base(old) + "x"} {
		path := filepath.Join(hooksMount, name)
		if err := os.MkdirAll(path+"/rootfs", 0o755); err != nil {
			t.Fatal(err)
		}
		w.tool("mount", "-t", "tmpfs", "other", path+"/rootfs")
		defer func() {
			w.tool("umount", path+"/rootfs")
			_ = os.RemoveAll(path)
		}()
	}
	// The next start gets the image.
	bundle := ask()
	r := w.runCommand(later(w.precreateCommand(bundle), 21*time.Minute))
	r.succeeds(t)
	w.write(bundle+"/config.json", r.out, 0o600)
	if _, err := os.Lstat(old); err == nil {
		t.Errorf("%s is still there", old)
	}
	if n := w.hookMounts(); n != 4 {
		t.Errorf("%d mounts, want the new one, and three that are no hook's", n)
	}
	w.runs("c", bundle)
	w.devicesAre(0)

	// A sweep by hand also removes what a killed hook may leave: directories without a
	// mount.
	w.precreate(ask())
	for _, n := range []string{"A", "B"} {
		dir := filepath.Join(hooksMount, fmt.Sprintf("%016x-%s", 1, strings.Repeat(n, 26)))
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if n == "B" {
			if err := os.Mkdir(dir+"/rootfs", 0o700); err != nil {
				t.Fatal(err)
			}
		}
	}
	w.sweepAll()
	w.hookDirs(3)
	w.devicesAre(0)
}

// Other users cannot reach the mount, but root of the user namespace can.
func TestKernelHookUserNamespace(t *testing.T) {
	ublktest.Require(t, ublktest.Once)
	eachRuntime(t, hooked, byHooks(func(w *wrapped) {
		image := w.imageOf("ext4", rootTree(w, "x"))
		const mapped = "x 0 100000 65536"
		for name, want := range map[string]string{"": "x 0 0 4294967295", "own": mapped, "another's": mapped} {
			bundle := w.bundle(asked{"image": image}, "sh", "-c", "cat /content /proc/self/uid_map")
			switch name {
			case "own":
				w.inUserNamespace(bundle)
			case "another's":
				w.joinsUserNamespace(bundle, w.userNamespace())
			}
			w.precreate(bundle)
			path := w.hookDirs(1)[0] + "/rootfs/content"
			reads := func(uid string) bool {
				return exec.Command("setpriv", "--reuid", uid, "--regid", uid, "--clear-groups", "cat", path).Run() == nil
			}
			if reads("1234") || reads("100000") != (want == mapped) {
				w.Errorf("user namespace %q: %s can be read by others, or not by its root", name, path)
			}
			if out := w.runs("c", bundle); strings.Join(strings.Fields(out), " ") != want {
				w.Errorf("user namespace %q: the container prints %q", name, out)
			}
			w.nothingLeft()
		}
		// A path that does not name a process leaves the namespace's mapping unknown.
		bound := w.TempDir() + "/namespace"
		w.write(bound, "", 0o600)
		w.tool("mount", "--bind", w.userNamespace(), bound)
		defer w.tool("umount", bound)
		bundle := w.bundle(asked{"image": image}, "true")
		w.joinsUserNamespace(bundle, bound)
		w.runCommand(w.precreateCommand(bundle)).fails(w, 1, "use ublk-runc or ublk-crun")
		w.hookDirs(0)
		w.devicesAre(0)
	}))
}

// Copies of the mount in other namespaces keep no device in use.
func TestKernelHookCopies(t *testing.T) {
	ublktest.Require(t, ublktest.Once)
	for _, propagation := range []string{"slave", "private", "unchanged"} {
		t.Run(propagation, func(t *testing.T) {
			w := kernelBed(t).wrap("crun")
			w.runtime = w.real
			bundle := w.bundle(asked{"image": w.imageOf("squashfs", rootTree(w, "x"))}, "sleep", "1000")
			w.precreate(bundle)
			other := exec.Command("unshare", "--mount", "--propagation", propagation, "cat")
			in, err := other.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := other.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() {
				_ = in.Close()
				_ = other.Wait()
			}()
			waitUntil(t, "the other namespace has a copy", func() bool {
				name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", other.Process.Pid))
				mounts, _ := os.ReadFile(fmt.Sprintf("/proc/%d/mounts", other.Process.Pid))
				return string(name) == "cat\n" && strings.Contains(string(mounts), hooksMount)
			})
			for _, args := range [][]string{{"create", "-b", bundle, "c"}, {"start", "c"}} {
				if r := w.calls(args...); r.status != 0 {
					t.Fatalf("%s: %s", args[0], r.err)
				}
			}
			defer w.forget("c")
			// The container is killed before poststop.
			pid := w.pid("c")
			if pid <= 1 || unix.Kill(pid, unix.SIGKILL) != nil {
				t.Fatalf("process %d", pid)
			}
			w.nothingLeft()
		})
	}
}

// The host's namespace has one mount, whatever options the annotations ask for.
func TestKernelHookOverlay(t *testing.T) {
	ublktest.Require(t, ublktest.Once)
	eachRuntime(t, hooked, byHooks(func(w *wrapped) {
		tree := w.TempDir()
		if err := os.Rename(rootTree(w, "x"), tree+"/root"); err != nil {
			w.Fatal(err)
		}
		ask := asked{"image": w.imageOf("erofs", tree), "subdir": "/root", "overlay": "tmpfs:1m"}
		for range 2 {
			bundle := w.bundle(ask, "sh", "-c", "cat /content; echo more >>/content; cat /content")
			w.precreate(bundle)
			if n := w.hookMounts(); n != 1 || len(hostMounts(w)) != len(w.mounts)+1 {
				w.Errorf("mounts are %q, were %q", hostMounts(w), w.mounts)
			}
			if out := w.runs("c", bundle); out != "xxmore\n" {
				w.Errorf("the container prints %q", out)
			}
			w.nothingLeft()
		}
	}))
}

// A wrapper in front of the runtime does not change a root from the hooks.
func TestKernelHookAndWrapper(t *testing.T) {
	w := kernelBed(t, ublktest.Once).wrap("runc", `attach_timeout = "5s"`)
	bundle := w.bundle(asked{"image": w.imageOf("ext4", rootTree(w, "x")), "options": "rw"}, "cat", "/content")
	w.precreate(bundle)
	if out := w.runs("c", bundle); out != "x" {
		t.Errorf("the container prints %q", out)
	}
	w.nothingLeft()
}

// A hook that is killed at any moment leaves only what a sweep removes.
func TestKernelHookKilled(t *testing.T) {
	w := kernelBed(t, ublktest.OldestAndNewest, ublktest.Soak).wrap("runc")
	bundle := w.bundle(asked{"image": w.imageOf("ext4", rootTree(w, "x")), "options": "rw"}, "true")
	full := w.runCommand(w.precreateCommand(bundle)).took
	w.sweepAll()
	w.nothingHooked()
	t.Logf("a whole hook takes %s", full)
	n := ublktest.Kills(t, 6, 10)
	left := 0
	ublktest.UntilHit(t, "kill of a hook", n, (n+1)/2, 8*n, func(i int) (hit bool) {
		cmd := w.precreateCommand(bundle)
		cmd.Stdout = nil
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(ublktest.Moment(full, i))
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if dirs, _ := filepath.Glob(hooksMount + "/*"); len(dirs) > 0 {
			left++
		}
		w.sweepAll()
		w.nothingHooked()
		return !cmd.ProcessState.Exited()
	})
	t.Logf("something was left %d times", left)
}

// Many containers of one image start at the same time.
func TestKernelHookParallel(t *testing.T) {
	w := kernelBed(t, ublktest.Once).wrap("runc")
	systemLog(t)
	const containers = 8
	bundle := w.bundle(asked{"image": w.imageOf("squashfs", rootTree(w, "x")), "overlay": "tmpfs:1m"}, "true")
	done := make(chan result)
	for range containers {
		cmd := w.precreateCommand(bundle)
		go func() { done <- w.runCommand(cmd) }()
	}
	for range containers {
		r := <-done
		if r.status != 0 {
			t.Errorf("precreate: exit status %d: %s", r.status, r.err)
		}
	}
	w.hookDirs(containers)
	w.devicesAre(containers)
	w.sweepAll()
	w.nothingHooked()
}

// Without a server, precreate fails at once. It does not sweep before: the unmount of a device that waits for a
// server would wait too, and nothing could interrupt it.
func TestKernelHookWithoutServer(t *testing.T) {
	w := kernelBed(t, ublktest.Once).wrap("crun", `sweep_after = "1ms"`)
	w.runtime = w.real
	w.server.stop()
	w.server = w.serve("--on-crash=reissue")
	image := w.imageOf("ext4", rootTree(w, "x"))
	ask := func() string { return w.bundle(asked{"image": image, "options": "rw"}, "true") }
	w.precreate(ask()) // for a container that never starts
	w.server.kill()
	cmd := w.precreateCommand(ask())
	ended := make(chan result, 1)
	go func() { ended <- w.runCommand(cmd) }()
	var r result
	select {
	case r = <-ended:
	case <-time.After(time.Minute):
		t.Error("precreate waits for a server")
	}
	w.server = w.serve("--on-crash=reissue")
	if t.Failed() {
		<-ended
	} else if r.status == 0 || !strings.Contains(r.err, "no server") {
		t.Errorf("precreate without a server: exit status %d, %s", r.status, r.err)
	}
	w.sweepAll()
	w.nothingHooked()
}
