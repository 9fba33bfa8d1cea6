package e2e

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// runtimes are the real runtimes.
var runtimes = []string{"runc", "crun"}

// eachRuntime runs a test with each runtime.
func eachRuntime(t *testing.T, settings string, test func(*wrapped)) {
	withRuntimes(t, runtimes, settings, test)
}

// everyRuntime runs a test with all versions of the runtimes. The test needs
// ublktest.Engines.
func everyRuntime(t *testing.T, settings string, test func(*wrapped)) {
	withRuntimes(t, append(slices.Clone(runtimes), moreRuntimes(t)...), settings, test)
}

func withRuntimes(t *testing.T, runtimes []string, settings string, test func(*wrapped)) {
	for _, runtime := range runtimes {
		t.Run(filepath.Base(runtime), func(t *testing.T) {
			if _, err := exec.LookPath(runtime); err != nil {
				t.Skip(err)
			}
			test(kernelBed(t).wrap(runtime, settings))
		})
	}
}

// With each file system, the container sees the image as its root, and the host sees no
// mount.
func TestKernelOCIFileSystems(t *testing.T) {
	eachRuntime(t, "", func(w *wrapped) {
		tree := rootTree(w, "of the image\n")
		for _, kind := range []string{"squashfs", "erofs", "ext4", "xfs"} {
			image := w.imageOf(kind, tree)
			out := w.runs("first", w.bundle(asked{"image": image, "fstype": kind}, "sh", "-c", "cat /content; cat /proc/mounts; echo x >/content"+"; true"))
			w.nothingLeft()
			root, _, _ := strings.Cut(strings.TrimPrefix(out, "of the image\n"), "\n")
			if !strings.HasPrefix(out, "of the image\n") || !strings.Contains(out, " / "+kind+" ro,") {
				w.Errorf("%s: the container prints %s", kind, out)
			}
			for _, masked := range []string{" /proc/keys ", " /proc/sys proc ro"} {
				if !strings.Contains(out, masked) {
					w.Errorf("%s: %q is not masked:\n%s", kind, masked, out)
				}
			}
			w.Logf("%s: %s", kind, root)
		}
	})
}

func TestKernelOCILife(t *testing.T) {
	ublktest.Require(t, ublktest.Engines, ublktest.OldestAndNewest)
	everyRuntime(t, "", func(w *wrapped) {
		image := w.imageOf("ext4", rootTree(w, "x"))

		// The exit status is the container's.
		if r := w.calls("run", "-b", w.bundle(asked{"image": image}, "sh", "-c", "exit 42"), "c"); r.status != 42 {
			w.Errorf("exit status %d: %s", r.status, r.err)
		}
		w.nothingLeft()

		// A container is created, started and killed without a deletion. Then its id is
		// used again.
		sleeping := w.bundle(asked{"image": image}, "sleep", "1000")
		if r := w.calls("create", "--bundle", sleeping, "c"); r.status != 0 {
			w.Fatalf("create: %s", r.err)
		}
		w.devicesAre(1)
		if r := w.calls("start", "c"); r.status != 0 {
			w.Fatalf("start: %s", r.err)
		}
		if r := w.calls("run", "-b", w.bundle(asked{"image": image}, "true"), "c"); r.status == 0 {
			w.Error("a second container of the same id")
		}
		w.devicesAre(1)
		if r := w.calls("exec", "c", "cat", "/content"); r.out != "x" {
			w.Errorf("exec prints %q, %s", r.out, r.err)
		}
		pid := w.pid("c")
		if pid <= 1 {
			w.Fatalf("process %d", pid)
		}
		if err := unix.Kill(pid, unix.SIGKILL); err != nil {
			w.Error(err)
		}
		w.nothingLeft()
		w.forget("c")

		// The same with a deletion.
		if r := w.calls("create", "--bundle", sleeping, "c"); r.status != 0 {
			w.Fatalf("create: %s", r.err)
		}
		_ = w.calls("start", "c")
		_ = w.calls("kill", "c", "KILL")
		w.nothingLeft()
		w.forget("c")

		// The runtime itself fails.
		if r := w.calls("run", "-b", w.bundle(asked{"image": image}, "/not/there"), "c"); r.status == 0 {
			w.Error("a program that is not there has run")
		}
		w.nothingLeft()
		w.forget("c")
	})
}

func TestKernelOCIRefused(t *testing.T) {
	w := kernelBed(t).wrap("runc", `attach_timeout = "10s"`, `writable_images = ["/var/lib/data"]`)
	ask := func(a asked) string { return w.bundle(a, "true") }
	image := w.imageOf("ext4", rootTree(w, "x"))
	w.refuses(ask(asked{"image": image, "options": "rw"}), image, "writable_images")
	w.refuses(ask(asked{"image": w.images + "/nothing"}), w.images+"/nothing", "not there")
	outside := filepath.Join(w.TempDir(), "ext4.img")
	w.tool("cp", image, outside)
	w.refuses(ask(asked{"image": outside}), outside, "not below a directory")
	if err := os.Symlink(outside, w.images+"/link.img"); err != nil {
		t.Fatal(err)
	}
	w.refuses(ask(asked{"image": w.images + "/link.img"}), "link")
	w.refuses(ask(asked{"image": w.images + "/../images/ext4.img"}), "not a plain absolute path")
	w.refuses(ask(asked{"image": w.images}), "")
	w.write(w.images+"/zeros.img", strings.Repeat("\x00", 1<<20), 0o644)
	w.refuses(ask(asked{"image": w.images + "/zeros.img"}), "zeros.img", "no file system")
	w.refuses(ask(asked{"image": image, "fstype": "xfs"}), "holds ext4, not xfs")
	w.tool("cp", image, w.images+"/journal.img")
	w.tool("debugfs", "-w", "-R", "set_super_value journal_dev 0x801", w.images+"/journal.img") // it would be sda1
	w.refuses(ask(asked{"image": w.images + "/journal.img"}), "journal.img", "journal is on another device")
	w.refuses(ask(asked{"image": image, "options": "ro,suid"}), "suid")
	w.refuses(ask(asked{"image": image, "optoins": "ro"}), "optoins")
	w.refuses(ask(asked{"image": image, "subdir": "/nothing"}), "not there")
	w.refuses(ask(asked{"image": image, "subdir": "/content"}), "/content")
	w.refuses(ask(asked{"image": image, "overlay": "dir:" + w.TempDir()}), "not below a directory")
	joining := ask(asked{"image": image})
	w.editBundle(joining, func(config map[string]any) {
		config["linux"] = map[string]any{"namespaces": []any{map[string]any{"type": "mount", "path": "/proc/1/ns/mnt"}}}
	})
	w.refuses(joining, "/proc/1/ns/mnt", "where the image is not mounted")
	// A file system that the kernel refuses.
	broken := w.images + "/broken.img"
	w.tool("cp", image, broken)
	w.tool("dd", "if=/dev/zero", "of="+broken, "bs=1", "seek=1104", "count=16", "conv=notrunc", "status=none")
	w.tool("dd", "if=/dev/urandom", "of="+broken, "bs=4", "seek=257", "count=2", "conv=notrunc", "status=none")
	w.refuses(ask(asked{"image": broken}), broken, "mount ext4")
	// A call that fails must not unmount the places of calls that are running.
	if mounts, err := os.ReadFile("/proc/self/mounts"); err != nil || !strings.Contains(string(mounts), " "+placesMount+" tmpfs ") {
		t.Errorf("the places are unmounted, error %v", err)
	}

	w.server.stop()
	r := w.calls("run", "--bundle", ask(asked{"image": image}), "c")
	if r.status != 1 || !strings.Contains(r.err, "no server") || strings.Count(r.err, "\n") != 1 {
		t.Errorf("without a server: exit status %d after %s: %s", r.status, r.took, r.err)
	}
	if limit := 8 * time.Second; r.took > limit {
		ublktest.TimedOut(t, limit, "the error without a server, which took %v", r.took)
	}
	w.server = w.serve()
}

// A handler and an owner of bundles have lists of their own. Without a list, no image may
// be written to.
func TestKernelOCIWritable(t *testing.T) {
	w := kernelBed(t, ublktest.Once).wrap("runc", `
writable_images = []
[handlers.runc-data]
writable_images = ["/"]
[owners.1000]
allowed_images = ["/nothing"]`)
	image := w.imageOf("ext4", rootTree(w, "x"))
	rw := asked{"image": image, "options": "rw"}
	w.refuses(w.bundle(rw, "true"), image, "writable_images")
	owned := w.bundle(rw, "true")
	if err := os.Chown(owned, 1000, 1000); err != nil {
		t.Fatal(err)
	}
	w.runtime = filepath.Join(w.TempDir(), "ublk-runc-data")
	if err := os.Symlink(w.bin, w.runtime); err != nil {
		t.Fatal(err)
	}
	w.runs("c", w.bundle(rw, "true"))
	w.refuses(owned, image, "not below a directory")
}

// An image has one writer at a time. The next writer gets it as soon as the previous one
// has ended.
func TestKernelOCIReadWrite(t *testing.T) {
	ublktest.Require(t, ublktest.OldestAndNewest, ublktest.Waits)
	eachRuntime(t, `attach_timeout = "10s"`, func(w *wrapped) {
		image := w.imageOf("ext4", rootTree(w, "x"))
		writing := func(command string) string {
			return w.bundle(asked{"image": image, "options": "rw,noatime"}, "sh", "-c", command)
		}
		w.runs("a", writing("echo kept >/file"))
		for range 5 { // at the same time
			if out := w.runs("a", writing("cat /file; grep ' / ext4 rw,.*noatime' /proc/mounts >/dev/null || cat /proc/mounts")); out != "kept\n" {
				w.Errorf("the container prints %q", out)
			}
		}
		if r := w.calls("create", "--bundle", writing("sleep 1000"), "a"); r.status != 0 {
			w.Fatalf("create: %s", r.err)
		}
		r := w.calls("run", "--bundle", writing("true"), "b")
		if r.status != 1 || !strings.Contains(r.err, "in use") || strings.Count(r.err, "\n") != 1 {
			w.Errorf("a second writer: exit status %d: %s", r.status, r.err)
		}
		w.devicesAre(1)
		// A copy that is made meanwhile has a journal that a read-only mount cannot
		// replay.
		unclean := w.images + "/unclean.img"
		w.tool("cp", image, unclean)
		if out := w.runs("c", w.bundle(asked{"image": unclean}, "grep", "-o", "norecovery", "/proc/mounts")); out != "norecovery\n" {
			w.Errorf("the container prints %q", out)
		}
		w.forget("a")
		w.nothingLeft()
		w.tool("e2fsck", "-fn", image)
	})
}

func TestKernelOCIOverlay(t *testing.T) {
	upper := t.TempDir()
	w := kernelBed(t, ublktest.OldestAndNewest).wrap("crun", fmt.Sprintf("allowed_overlays = [%q]", upper), `attach_timeout = "5s"`)
	tree := rootTree(w, "x")
	if err := os.Rename(tree, tree+"s"); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(tree, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(tree+"s", tree+"/root"); err != nil { // a subdirectory of the image
		t.Fatal(err)
	}
	for _, kind := range []string{"squashfs", "erofs", "ext4"} {
		image := w.imageOf(kind, tree)
		tmpfs := asked{"image": image, "subdir": "/root", "overlay": "tmpfs:1m"}
		const script = "cat /content; echo more >>/content; cat /content; dd if=/dev/zero of=/big bs=1000 count=1000 2>/dev/null && { dd if=/dev/zero of=/big bs=1M count=2 2>/dev/null || echo full; }"
		for range 2 {
			if out := w.runs("c", w.bundle(tmpfs, "/bin/busybox", "sh", "-c", script)); out != "xxmore\nfull\n" {
				t.Errorf("%s: the container prints %q", kind, out)
			}
			w.nothingLeft()
		}
	}
	// A directory takes the writes of one container at a time, and keeps them.
	var ask asked
	for _, kind := range []string{"ext4", "squashfs"} {
		if err := os.Mkdir(upper+"/"+kind, 0o700); err != nil {
			t.Fatal(err)
		}
		ask = asked{"image": w.images + "/" + kind + ".img", "subdir": "/root", "overlay": "dir:" + upper + "/" + kind}
		w.runs("c", w.bundle(ask, "sh", "-c", "echo more >>/content"))
		if out := w.runs("c", w.bundle(ask, "sh", "-c", "cat /content")); out != "xmore\n" {
			t.Errorf("the container prints %q", out)
		}
	}
	// The content of the directory belongs to one image.
	w.tool("tune2fs", "-f", "-U", "random", w.images+"/ext4.img")
	w.refuses(w.bundle(asked{"image": w.images + "/ext4.img", "subdir": "/root", "overlay": "dir:" + upper + "/ext4"}, "true"), "mount overlay", "stale")
	if r := w.calls("create", "--bundle", w.bundle(ask, "sleep", "1000"), "c"); r.status != 0 {
		t.Fatalf("create: %s", r.err)
	}
	if r := w.calls("run", "--bundle", w.bundle(ask, "true"), "d"); r.status != 1 || !strings.Contains(r.err, "mount overlay at") || !strings.Contains(r.err, "busy") {
		t.Errorf("a second container with the overlay's directory: exit status %d: %s", r.status, r.err)
	}
	w.devicesAre(1)
	w.forget("c")
	w.nothingLeft()
	w.refusesPlanted(ask, upper)
}

// refusesPlanted checks that links in a directory for overlays, which a container or
// another user has made, lead no other container elsewhere.
func (w *wrapped) refusesPlanted(ask asked, overlays string) {
	w.Helper()
	target := w.TempDir()
	_, dir, _ := strings.Cut(ask["overlay"], ":")
	plant := fmt.Sprintf("busybox mkdir /trap && busybox ln -s %[1]s /trap/upper && busybox ln -s %[1]s /trap/work", target)
	w.runs("c", w.bundle(ask, "sh", "-c", plant))
	trapped := func(dir string) string {
		a := maps.Clone(ask)
		a["overlay"] = "dir:" + dir
		return w.bundle(a, "sh", "-c", "echo x >/escaped")
	}
	w.refuses(trapped(dir+"/upper/trap"), `contains "upper"`)
	for _, name := range []string{"upper", "work"} {
		dir := filepath.Join(overlays, "planted-"+name)
		if err := os.Mkdir(dir, 0o700); err != nil {
			w.Fatal(err)
		}
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			w.Fatal(err)
		}
		w.refuses(trapped(dir), dir+"/"+name, "the path contains a link")
	}
	if entries, err := os.ReadDir(target); err != nil || len(entries) > 0 {
		w.Errorf("outside there is %q, error %v", entries, err)
	}
}

// The root of a container with a user namespace, an ordinary user of the host, can pass
// the path to the root directory.
func TestKernelOCIUserNamespace(t *testing.T) {
	ublktest.Require(t, ublktest.Engines, ublktest.OldestAndNewest)
	everyRuntime(t, "", func(w *wrapped) {
		for _, kind := range []string{"squashfs", "ext4"} {
			dir := w.bundle(asked{"image": w.imageOf(kind, rootTree(w, "x"))}, "sh", "-c", "cat /content /proc/self/uid_map")
			w.inUserNamespace(dir)
			if out := w.runs("c", dir); strings.Join(strings.Fields(out), " ") != "x 0 100000 65536" {
				w.Errorf("%s: the container prints %q", kind, out)
			}
			w.nothingLeft()
		}
	})
}

// Many containers of one image start at the same time.
func TestKernelOCIParallel(t *testing.T) {
	ublktest.Require(t, ublktest.OldestAndNewest)
	eachRuntime(t, "", func(w *wrapped) {
		image := w.imageOf("squashfs", rootTree(w, "x"))
		const containers = 8
		var bundles []string
		for range containers {
			bundles = append(bundles, w.bundle(asked{"image": image}, "sleep", "1000"))
		}
		done := make(chan result)
		for i := range containers {
			go func() { done <- w.calls("create", "--bundle", bundles[i], fmt.Sprint("c", i)) }()
		}
		for range containers {
			if r := <-done; r.status != 0 {
				w.Errorf("create: exit status %d: %s", r.status, r.err)
			}
		}
		w.devicesAre(containers)
		for i := range containers {
			w.forget(fmt.Sprint("c", i))
		}
		w.nothingLeft()
	})
}

// A call that is killed at any moment leaves nothing.
func TestKernelOCIKilled(t *testing.T) {
	ublktest.Require(t, ublktest.OldestAndNewest, ublktest.Soak)
	eachRuntime(t, "", func(w *wrapped) {
		image := w.imageOf("ext4", rootTree(w, "x"))
		full := w.calls("run", "--bundle", w.bundle(asked{"image": image}, "true"), "c").took
		w.Logf("a whole run takes %s", full)
		n := ublktest.Kills(w, 8, 30)
		ublktest.UntilHit(w, "kill of a call", n, (n+1)/2, 8*n, func(i int) (hit bool) {
			cmd := w.call("run", "--bundle", w.bundle(asked{"image": image, "options": "rw"}, "sleep", "1000"), fmt.Sprint("k", i))
			if err := cmd.Start(); err != nil {
				w.Fatal(err)
			}
			time.Sleep(ublktest.Moment(full, i))
			_ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
			_ = cmd.Wait()
			w.forget(fmt.Sprint("k", i))
			// The runtime may have started a container that it has not yet ended itself.
			w.killContainers()
			w.nothingLeft()
			return !cmd.ProcessState.Exited()
		})
		w.tool("e2fsck", "-fp", image)
	})
}

// A call that was stopped while it had the lock of the mount places does not make others wait for ever.
func TestKernelOCILockIsHeld(t *testing.T) {
	w := kernelBed(t, ublktest.Once, ublktest.Waits).wrap("crun")
	bundle := w.bundle(asked{"image": w.imageOf("ext4", rootTree(w, "x"))}, "cat", "/content")
	w.runs("first", bundle) // makes the places
	lock, err := os.Open("/run/ublk-loop-oci/lock")
	if err == nil {
		err = unix.Flock(int(lock.Fd()), unix.LOCK_EX)
	}
	if err != nil {
		t.Fatal(err)
	}
	w.refuses(bundle, fmt.Sprintf("lock /run/ublk-loop-oci/lock: process %d has it for 10s", os.Getpid()))
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	if out := w.runs("second", bundle); out != "x" {
		t.Errorf("the container prints %q", out)
	}
	w.nothingLeft()
}

// A call that makes no container from an image reaches the runtime unchanged.
func TestKernelOCIPassesThrough(t *testing.T) {
	w := kernelBed(t).wrap(`
for a in "$0" "$@"; do echo "[$a]"; done
echo "$VARIABLE"
for f in /proc/$$/fd/*; do [ ! -e "$f" ] || printf '%s ' "${f##*/}"; done
readlink /proc/$$/ns/mnt
exit 7
`)
	plain := w.bundle(nil, "true")
	before := w.readAll(plain)
	own, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		t.Fatal(err)
	}
	// printed returns the script's output: its arguments, a variable and its descriptors.
	// The shell has opened the script as one more descriptor.
	printed := func(args []string, variable, descriptors string) string {
		text := "[" + filepath.Join(filepath.Dir(w.runtime), "script") + "]\n"
		for _, a := range args {
			text += "[" + a + "]\n"
		}
		return text + variable + "\n" + descriptors + own + "\n"
	}
	for _, args := range [][]string{{"delete", "--force", "id"}, {}, {"--root", "/x", "state", "a b"}, {"create", "--bundle", plain, "x"}, {"run", "--bundle", "/nothing", "x"}} {
		cmd := w.call(args...)
		null, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		cmd.Env = []string{"VARIABLE=is\there", "PATH=/bin"}
		cmd.ExtraFiles = []*os.File{null, null}
		r := w.runCommand(cmd)
		_ = null.Close()
		want := printed(args, "is\there", "0 1 10 2 3 4 ")
		got := strings.Replace(r.out, "2 255 3 4", "10 2 3 4", 1)
		if r.status != 7 || got != want {
			t.Errorf("%q: exit status %d, output\n%s\nwant\n%s\n%s", args, r.status, r.out, want, r.err)
		}
	}
	if after := w.readAll(plain); string(before) != string(after) {
		t.Error("a bundle that asks for nothing was changed")
	}
	r := w.run("oci", "--runtime", "runc", "--", "delete", "-f")
	want := printed([]string{"delete", "-f"}, "", "0 1 10 2 ")
	if got := strings.Replace(r.out, "2 255 ", "10 2 ", 1); r.status != 7 || got != want {
		t.Errorf("oci: exit status %d, output\n%s\nwant\n%s\n%s", r.status, r.out, want, r.err)
	}
}
