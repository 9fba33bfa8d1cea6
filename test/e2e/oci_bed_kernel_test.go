package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/oci"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// wrapped is the environment of a test that runs containers with roots from images.
type wrapped struct {
	*bed
	server  *many
	runtime string // the called program: the wrapper, or the real runtime in a test of hooks
	wrapper string // name by which ublk-loop is called
	real    string // the runtime behind it
	images  string // the allowed directory
	mounts  []string
	apart   string // directory whose mounts belong to the engine; "" if there is none
}

// placesMount is the mount point of the tmpfs that stays.
const placesMount = "/run/ublk-loop-oci/ns"

// hooksMount is the directory of the hooks' mounts.
const hooksMount = "/run/ublk-loop-oci/hooks"

// wrap returns an environment for containers of a runtime: "runc", "crun", the path of a
// runtime, or the text of a shell script that stands in for a runtime. All mounts are
// shared, as with systemd. The default attach_timeout allows for many devices at once on
// a busy machine. By default all images may be written to.
func (b *bed) wrap(runtime string, settings ...string) *wrapped {
	b.Helper()
	if _, err := exec.LookPath("runc"); err != nil { // it writes the bundles; the machines for arm64 have none
		b.Skip(err)
	}
	b.tool("mount", "--make-rshared", "/")
	b.Cleanup(func() { b.tool("mount", "--make-rprivate", "/") })
	dir := b.TempDir()
	w := &wrapped{bed: b, images: filepath.Join(dir, "images")}
	program, err := exec.LookPath(runtime)
	name, _, _ := strings.Cut(filepath.Base(runtime), "-")
	if err != nil {
		program, name = filepath.Join(dir, "script"), "runc"
		b.write(program, "#!/bin/sh\n"+runtime, 0o755)
	}
	w.wrapper, w.real = filepath.Join(dir, "ublk-"+name), program
	w.runtime = w.wrapper
	if err := os.Symlink(b.bin, w.wrapper); err != nil {
		b.Fatal(err)
	}
	for _, d := range []string{w.images, "/etc/ublk-loop"} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			b.Fatal(err)
		}
	}
	more := strings.Join(settings, "\n")
	if !strings.Contains(more, "attach_timeout") {
		more = "attach_timeout = \"2m\"\n" + more
	}
	if !strings.Contains(more, "writable_images") {
		more = fmt.Sprintf("writable_images = [%q]\n%s", w.images, more)
	}
	text := fmt.Sprintf("allowed_images = [%q]\n%s\n[runtimes]\n%s = %q\n", w.images, more, name, program)
	b.write(oci.SettingsPath, text, 0o644)
	b.Cleanup(func() { _ = os.Remove(oci.SettingsPath) })
	w.server = b.serve()
	w.mounts = hostMounts(b)
	b.Cleanup(func() { // remains of a failed test must not make the next one fail
		w.killContainers()
		w.forgetAll()
		_ = w.run("hook", "sweep", "--older-than", "0s")
	})
	b.Cleanup(w.nothingLeft)
	return w
}

func (b *bed) write(path, text string, mode os.FileMode) {
	b.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		b.Fatal(err)
	}
}

// hostMounts returns the mounts of this namespace, except those that always stay.
func hostMounts(t testing.TB) []string {
	t.Helper()
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	var mounts []string
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); fields[4] != placesMount {
			mounts = append(mounts, fields[4])
		}
	}
	slices.Sort(mounts)
	return mounts
}

// nothingLeft waits until all devices are gone, and checks that nothing else is left.
func (w *wrapped) nothingLeft() {
	w.Helper()
	if w.server.cmd != nil { // otherwise the server has ended, and all its devices with it
		w.devicesAre(0)
	}
	w.noTraces()
	// A runtime makes mounts of its own for a moment. It leaves one if it is killed
	// before it unmounts it.
	mounts := slices.DeleteFunc(hostMounts(w), func(path string) bool {
		name, _, _ := strings.Cut(filepath.Base(path), ".")
		return (name == "crun" || name == "runc") && unix.Unmount(path, unix.MNT_DETACH) == nil ||
			w.apart != "" && strings.HasPrefix(path, w.apart+"/")
	})
	if !slices.Equal(mounts, w.mounts) {
		w.Errorf("mounts are %q, were %q", mounts, w.mounts)
	}
}

// noTraces waits until no trace of a device is left. The server's list is not enough,
// because the server lists a device only when it is complete, and a killed client may
// have just asked for one.
func (w *wrapped) noTraces() {
	w.Helper()
	var traces []string
	defer func() {
		if len(traces) > 0 {
			w.Errorf("left behind: %q", traces)
		}
	}()
	waitUntil(w, "all devices have left no trace", func() bool {
		traces = nil
		for _, pattern := range []string{"/sys/block/ublkb*", "/dev/ublk[bc]?*", "/run/ublk-loop/*.json", "/run/ublk-loop/*.lock"} {
			paths, _ := filepath.Glob(pattern)
			traces = append(traces, paths...)
		}
		traces = slices.DeleteFunc(traces, func(path string) bool {
			return path == "/dev/ublk-control" || path == "/run/ublk-loop/control.sock.lock"
		})
		return len(traces) == 0
	})
}

// devicesAre waits until the server has n devices.
func (w *wrapped) devicesAre(n int) {
	w.Helper()
	have := -1
	defer func() {
		if have != n {
			ublktest.Detail(w, "%s", w.users())
		}
	}()
	waitUntil(w, fmt.Sprintf("there are %d devices", n), func() bool {
		var list []json.RawMessage
		w.decode(w.server.curl("-f", "http://x/v1/devices"), &list)
		have = len(list)
		return have == n
	})
}

// killContainers kills all processes whose root is a device.
func (w *wrapped) killContainers() {
	paths, _ := filepath.Glob("/proc/[0-9]*")
	for _, path := range paths {
		mounts, _ := os.ReadFile(path + "/mounts")
		pid, err := strconv.Atoi(filepath.Base(path))
		if err == nil && pid > 1 && hasDeviceRoot(mounts) {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
}

func hasDeviceRoot(mounts []byte) bool {
	for line := range strings.Lines(string(mounts)) {
		if strings.HasPrefix(line, "/dev/ublkb") && strings.Contains(line, " / ") {
			return true
		}
	}
	return false
}

// users explains an unexpected number of devices: it lists all processes, and marks those
// that have a device mounted or open.
func (w *wrapped) users() string {
	text := "the server's log:\n" + w.server.errOut.String()
	paths, _ := filepath.Glob("/proc/[0-9]*")
	for _, path := range paths {
		cmdline, _ := os.ReadFile(path + "/cmdline")
		if len(cmdline) == 0 {
			continue // a thread of the kernel
		}
		text += fmt.Sprintf("%s: %q", path, cmdline)
		mounts, _ := os.ReadFile(path + "/mounts")
		for line := range strings.Lines(string(mounts)) {
			if strings.HasPrefix(line, "/dev/ublkb") {
				text += " has mounted " + strings.TrimSpace(line)
			}
		}
		fds, _ := filepath.Glob(path + "/fd/*")
		for _, fd := range fds {
			if name, _ := os.Readlink(fd); strings.HasPrefix(name, "/dev/ublkb") {
				text += " has open " + name
			}
		}
		stack, _ := os.ReadFile(path + "/stack")
		text += "\n" + string(stack)
	}
	return text
}

// rootTree makes a directory with the programs that a container needs, and a file with
// the content.
func rootTree(t testing.TB, content string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "tree")
	for _, d := range []string{"bin", "proc", "sys", "dev", "etc", "tmp", "run"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{{"cp", "/usr/bin/busybox", dir + "/bin/busybox"}, {"chmod", "755", dir, dir + "/bin/busybox"}} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	for _, name := range []string{"sh", "cat", "dd", "sleep", "grep", "true"} {
		if err := os.Symlink("busybox", filepath.Join(dir, "bin", name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "content"), []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

// imageOf makes an image of a directory, in the allowed directory.
func (w *wrapped) imageOf(kind, tree string) string {
	w.Helper()
	path := filepath.Join(w.images, kind+".img")
	switch kind {
	case "ext4":
		w.tool("truncate", "-s", "16M", path)
		w.tool("mke2fs", "-q", "-t", "ext4", "-O", "^resize_inode", "-d", tree, path)
	case "erofs":
		w.tool("mkfs.erofs", path, tree)
	case "squashfs":
		w.tool("mksquashfs", tree, path, "-quiet", "-no-progress", "-noI", "-noD", "-noF", "-noX")
	case "xfs":
		w.tool("truncate", "-s", "320M", path)
		w.tool("mkfs.xfs", "-q", path)
		s := w.add("--standalone", path)
		dir := w.TempDir()
		w.tool("mount", s.Device, dir)
		w.tool("cp", "-a", tree+"/.", dir)
		w.tool("umount", dir)
		w.del(s.Device)
	}
	return path
}

// asked holds the annotations of a bundle.
type asked map[string]string

// bundle makes a bundle whose container runs a command. The names of the annotations lack
// their prefix.
func (w *wrapped) bundle(wanted asked, command ...string) string {
	w.Helper()
	dir := w.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "rootfs"), 0o755); err != nil {
		w.Fatal(err)
	}
	w.tool("runc", "spec", "--bundle", dir)
	w.editBundle(dir, func(config map[string]any) {
		process, _ := config["process"].(map[string]any)
		process["terminal"] = false
		process["args"] = command
		config["root"] = map[string]any{"path": "rootfs", "readonly": false}
		annotations := map[string]string{"org.example": "<&>"}
		for name, value := range wanted {
			annotations["dev.ublk-loop.rootfs."+name] = value
		}
		config["annotations"] = annotations
	})
	return dir
}

// editBundle edits the configuration of a bundle.
func (w *wrapped) editBundle(dir string, edit func(config map[string]any)) {
	w.Helper()
	path := filepath.Join(dir, "config.json")
	text, err := os.ReadFile(path)
	if err != nil {
		w.Fatal(err)
	}
	var config map[string]any
	w.decode(string(text), &config)
	edit(config)
	out, err := json.MarshalIndent(config, "", "\t")
	if err != nil {
		w.Fatal(err)
	}
	w.write(path, string(out), 0o640)
}

// call returns the wrapper's call.
func (w *wrapped) call(args ...string) *exec.Cmd {
	cmd := exec.Command(w.runtime, args...)
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	return cmd
}

func (w *wrapped) calls(args ...string) result {
	w.Helper()
	return w.outlived(w.call(args...))
}

// outlived runs a command that starts a process which may outlive it. The output goes to
// files, because a pipe would stay open.
func (w *wrapped) outlived(cmd *exec.Cmd) result {
	w.Helper()
	var files []*os.File
	for _, name := range []string{"out", "err"} {
		f, err := os.Create(filepath.Join(w.TempDir(), name))
		if err != nil {
			w.Fatal(err)
		}
		defer f.Close()
		files = append(files, f)
	}
	cmd.Stdout, cmd.Stderr = files[0], files[1]
	start := time.Now()
	runErr := cmd.Run()
	var texts [2]string
	for i, f := range files {
		text, err := os.ReadFile(f.Name())
		if err != nil {
			w.Fatal(err)
		}
		texts[i] = string(text)
	}
	r := result{args: cmd.Args[1:], status: cmd.ProcessState.ExitCode(), out: texts[0], err: texts[1], took: time.Since(start)}
	if r.status < 0 {
		r.err += runErr.Error() // the signal that killed it
	}
	return r
}

// runs runs a container to its end, which must succeed, and returns its output.
func (w *wrapped) runs(id, bundle string) string {
	w.Helper()
	r := w.calls("run", "--bundle", bundle, id)
	if r.status != 0 {
		w.Fatalf("run: exit status %d\n%s%s", r.status, r.out, r.err)
	}
	return r.out
}

// refuses checks that a container is refused, that the error is one line with the texts,
// and that the bundle is unchanged.
func (w *wrapped) refuses(bundle string, texts ...string) {
	w.Helper()
	before := w.readAll(bundle)
	r := w.calls("run", "--bundle", bundle, "refused")
	line, more, _ := strings.Cut(r.err, "\n")
	if r.status != 1 || more != "" || !strings.HasPrefix(line, "ublk-loop: error: rootfs image unavailable: ") {
		w.Errorf("exit status %d, output %q, errors %q", r.status, r.out, r.err)
	}
	for _, text := range texts {
		if !strings.Contains(line, text) {
			w.Errorf("%q lacks %q", line, text)
		}
	}
	for _, text := range []string{"no such file or directory", "permission denied", "operation not permitted"} {
		if strings.Contains(strings.ToLower(line), text) {
			w.Errorf("%q is for podman another failure", line)
		}
	}
	if after := w.readAll(bundle); !bytes.Equal(before, after) {
		w.Errorf("the bundle is\n%s\nand was\n%s", after, before)
	}
	w.nothingLeft()
}

// readAll returns the names and contents of a bundle's files.
func (w *wrapped) readAll(bundle string) []byte {
	w.Helper()
	entries, err := os.ReadDir(bundle)
	if err != nil {
		w.Fatal(err)
	}
	var all []byte
	for _, e := range entries {
		text, _ := os.ReadFile(filepath.Join(bundle, e.Name()))
		all = append(append(all, e.Name()+"\n"...), text...)
	}
	return all
}

// pid returns the pid of a container's first process.
func (w *wrapped) pid(id string) int {
	w.Helper()
	var state struct {
		PID    int    `json:"pid"`
		Status string `json:"status"`
	}
	r := w.calls("state", id)
	if r.status != 0 {
		return 0
	}
	w.decode(r.out, &state)
	return state.PID
}

// forgetAll deletes the containers of all runtimes.
func (w *wrapped) forgetAll() {
	kept, err := filepath.Glob("/run/[rc]*un*/*")
	if err != nil {
		w.Fatal(err)
	}
	for _, path := range kept {
		runtime := filepath.Base(filepath.Dir(path))
		if out, err := exec.Command(runtime, "delete", "--force", filepath.Base(path)).CombinedOutput(); err != nil {
			ublktest.Detail(w, "%s does not delete %s: %v: %s", runtime, path, err, out)
		}
	}
}

// forget deletes a container.
func (w *wrapped) forget(id string) {
	w.Helper()
	// All versions of a runtime keep their containers in one directory. A deletion may
	// fail while the last process of the container is ending.
	waitUntil(w, "the runtime has deleted container "+id, func() bool {
		_ = w.calls("delete", "--force", id)
		kept, err := filepath.Glob("/run/[rc]*un*/" + id)
		return err == nil && len(kept) == 0
	})
}
