package main

import (
	"context"
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

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// containerd is a daemon that a test started, with the snapshotter as its plugin.
type containerd struct {
	*bed
	programs    string // the directory with containerd, ctr and the shim
	address     string
	daemon      *process
	snapshotter *process
}

// These are the snapshotter's socket and its name in containerd.
const (
	snapshotterSocket = "/run/ublk-loop/snapshotter.sock"
	snapshotterName   = "ublk-loop"
	stateDir          = "/run/containerd-test" // containerd's state directory
)

// eachContainerd runs a test with each installed version of containerd.
func eachContainerd(t *testing.T, test func(c *containerd)) {
	dirs, err := filepath.Glob(filepath.Join(os.Getenv("UBLK_LOOP_CONTAINERD"), "*"))
	if err != nil || len(dirs) == 0 {
		t.Fatalf("no containerd below UBLK_LOOP_CONTAINERD=%q", os.Getenv("UBLK_LOOP_CONTAINERD"))
	}
	for _, dir := range dirs {
		t.Run(filepath.Base(dir), func(t *testing.T) { test(newContainerd(newBed(t), dir)) })
	}
}

// newContainerd starts the snapshotter and containerd, and imports an image.
func newContainerd(b *bed, programs string) *containerd {
	b.Helper()
	c := &containerd{bed: b, programs: programs, address: stateDir + ".sock"}
	c.startSnapshotter()
	config := filepath.Join(b.dir, "config.toml")
	b.write(config, c.config())
	b.Setenv("PATH", programs+":"+os.Getenv("PATH"))
	c.daemon = b.start(filepath.Join(programs, "containerd"), "--config", config)
	b.Cleanup(c.cleanUp)
	b.until("containerd answers", func() bool { return exec.Command(c.program("ctr"), "--address", c.address, "version").Run() == nil })
	c.ctr("image", "import", "--no-unpack", b.archiveImage(baseLayer(b), layer{"content": "of the upper layer", "second": ""}))
	return c
}

// config returns the configuration of containerd for a slow machine. By default containerd pauses
// for 49 times as long as it collects garbage, gives up on a shim after seconds, and on a task
// after two.
func (c *containerd) config() string {
	return `version = 2
root = "` + c.dir + `/root"
state = "` + stateDir + `"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.nri.v1.nri"]
[grpc]
address = "` + c.address + `"
[proxy_plugins.` + snapshotterName + `]
type = "snapshot"
address = "` + snapshotterSocket + `"
[plugins."io.containerd.gc.v1.scheduler"]
pause_threshold = 0.5
[timeouts]
"io.containerd.timeout.shim.cleanup" = "60s"
"io.containerd.timeout.shim.load" = "60s"
"io.containerd.timeout.shim.shutdown" = "60s"
"io.containerd.timeout.task.state" = "60s"
`
}

// retryAfter is the time after which a test makes containerd try removals again.
const retryAfter = 10 * time.Second

// devicesAre waits until the server has n devices. If a device was in use for longer than the
// snapshotter waits, containerd removes the snapshot together with the next one that goes.
func (c *containerd) devicesAre(n int) {
	c.Helper()
	var list []client.Device
	next := time.Now().Add(retryAfter)
	c.until(fmt.Sprintf("there are %d devices", n), func() bool {
		list = c.devices()
		if len(list) != n && time.Now().After(next) {
			c.removeAnother()
			next = time.Now().Add(retryAfter)
		}
		return len(list) == n
	}, func() string { return fmt.Sprintf("%+v", list) })
}

// removeAnother makes a snapshot and removes it, so that containerd collects garbage. It fails
// without a snapshotter.
func (c *containerd) removeAnother() {
	c.Helper()
	_, _ = c.try("snapshot", "prepare", "another")
	_, _ = c.try("snapshot", "rm", "another")
}

func (c *containerd) program(name string) string { return filepath.Join(c.programs, name) }

// startSnapshotter starts the snapshotter with the privileges of its systemd unit.
func (c *containerd) startSnapshotter() {
	c.Helper()
	c.snapshotter = c.start("setpriv", "--bounding-set=-all,+dac_override,+dac_read_search", "--no-new-privs",
		os.Getenv("UBLK_LOOP_SNAPSHOTTER"), "--root", filepath.Join(c.dir, "snapshotter"), "--address", snapshotterSocket, "--size", "32M")
	c.snapshotterListens()
}

// cleanUp removes all that a test has left, including the image, and ends both daemons.
func (c *containerd) cleanUp() {
	for _, id := range strings.Fields(c.ctr("task", "ls", "-q")) {
		c.ctr("task", "rm", "-f", id)
	}
	for _, id := range strings.Fields(c.ctr("container", "ls", "-q")) {
		c.ctr("container", "rm", id)
	}
	c.devicesAre(0)
	c.daemon.end(unix.SIGTERM)
	c.snapshotter.end(unix.SIGTERM)
	// The shims' files: a shim outlives containerd and removes its files last.
	_ = os.RemoveAll(stateDir)
}

// baseLayer returns the files that a container needs.
func baseLayer(b *bed) layer {
	b.Helper()
	busybox, err := os.ReadFile("/usr/bin/busybox")
	if err != nil {
		b.Fatal(err)
	}
	l := layer{"bin/busybox": string(busybox), "content": "of the base layer"}
	for _, dir := range []string{"proc/", "sys/", "dev/", "etc/", "tmp/", "run/"} {
		l[dir] = ""
	}
	for _, name := range []string{"sh", "cat", "sleep", "grep", "sync"} {
		l["bin/"+name] = "-> busybox"
	}
	return l
}

// try calls ctr, which may fail.
func (c *containerd) try(args ...string) (string, error) {
	// Without a snapshotter, a call may wait for it.
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.program("ctr"), append([]string{"--address", c.address}, args...)...)
	cmd.Env = append(os.Environ(), "CONTAINERD_SNAPSHOTTER="+snapshotterName)
	// A file, not a pipe: the shim keeps the output open.
	out, err := os.Create(filepath.Join(c.TempDir(), "out"))
	if err != nil {
		c.Fatal(err)
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	runErr := cmd.Run()
	text, err := os.ReadFile(out.Name())
	if err != nil {
		c.Fatal(err)
	}
	return string(text), runErr
}

// ctr calls ctr, which must succeed.
func (c *containerd) ctr(args ...string) string {
	c.Helper()
	out, err := c.try(args...)
	if err != nil {
		c.Fatalf("ctr %q: %v\n%s", args, err, out)
	}
	return out
}

// runs runs a container to its end, removes it, and returns its output.
func (c *containerd) runs(script string, flags ...string) string {
	c.Helper()
	args := slices.Concat(flags, []string{imageName, "short", "sh", "-c", script})
	return c.printed([]string{"run", "--rm"}, args...)
}

// sleeps starts a container that only sleeps.
func (c *containerd) sleeps(id string, flags ...string) {
	c.Helper()
	c.ctr(append(append([]string{"run", "--detach"}, flags...), imageName, id, "sleep", "10000")...)
}

// exec runs a script in a container.
func (c *containerd) exec(id, script string) string {
	c.Helper()
	return c.printed([]string{"task", "exec"}, "--exec-id", "e", id, "sh", "-c", script)
}

// printed calls ctr for a process to its end, and returns what the process printed.
// The shim writes that to a file: ctr loses the output of a process that ends before
// ctr has opened its pipes.
func (c *containerd) printed(command []string, args ...string) string {
	c.Helper()
	log := filepath.Join(c.TempDir(), "log")
	c.ctr(slices.Concat(command, []string{"--log-uri", "file://" + log}, args)...)
	text, err := os.ReadFile(log)
	if err != nil {
		c.Fatal(err)
	}
	return string(text)
}

// pid returns the pid of the container's first process.
func (c *containerd) pid(id string) int {
	c.Helper()
	for line := range strings.Lines(c.ctr("task", "ls")) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == id {
			pid, err := strconv.Atoi(fields[1])
			if err != nil {
				c.Fatal(err)
			}
			return pid
		}
	}
	c.Fatalf("container %s has no process", id)
	return 0
}

// TestKernelContainerd makes, ends, kills and removes containers of one containerd. It
// shares the daemon, because containerd and each container take seconds to start in
// emulation.
func TestKernelContainerd(t *testing.T) {
	ublktest.Require(t, ublktest.Own, ublktest.Containerd, ublktest.Snapshotter, ublktest.OldestAndNewest)
	eachContainerd(t, func(c *containerd) {
		c.testLayers()
		c.testSize()
		c.testImage()
		c.testSnapshotterKilled()
		c.testServerStopped()
		c.testCommit()
	})
}

// testLayers checks a container that writes, and that the next container does not see its
// data.
func (c *containerd) testLayers() {
	c.Helper()
	out := c.runs("cat /content; grep ' / ' /proc/mounts; echo x >/second && cat /second")
	if !strings.HasPrefix(out, "of the upper layer/dev/ublkb") || !strings.Contains(out, " / ext4 rw,") || !strings.HasSuffix(out, "x\n") {
		c.Errorf("a container prints %s", out)
	}
	c.devicesAre(0)
	if out := c.printed([]string{"run"}, imageName, "kept", "sh", "-c", "cat /second; echo again >>/second"); out != "" {
		c.Errorf("another's file: %q", out)
	}
	c.devicesAre(1) // the container keeps its device while it exists
}

// testSize checks that a container's file system has the size of a label.
func (c *containerd) testSize() {
	c.Helper()
	size := func(bytes string) []string {
		return []string{"--snapshotter-label", "containerd.io/snapshot/max-size=" + bytes}
	}
	out := c.runs("/bin/busybox df -k / | /bin/busybox tail -n 1", size("25165824")...)
	fields := strings.Fields(out)
	if len(fields) < 2 {
		c.Fatalf("df prints %q", out)
	}
	if kib, err := strconv.Atoi(fields[1]); err != nil || kib > 24<<10 || kib < 12<<10 {
		c.Errorf("a container with 24 MiB has %s KiB, error %v", fields[1], err)
	}
	for bytes, text := range map[string]string{"1073741824": "--max-size", "1G": "not a positive number"} {
		if out, err := c.try(append(append([]string{"run", "--rm"}, size(bytes)...), imageName, "refused", "cat", "/content")...); err == nil || !strings.Contains(out, text) {
			c.Errorf("a container with %s bytes: %v: %s", bytes, err, out)
		}
		_, _ = c.try("container", "rm", "refused")
	}
}

// testImage checks a container whose root is an image file instead of layers, and one
// that is killed with its shim.
func (c *containerd) testImage() {
	c.Helper()
	image := filepath.Join(c.images, "root.squashfs")
	c.tool("mksquashfs", baseLayer(c.bed).unpack(c.bed), image, "-quiet", "-no-progress", "-noI", "-noD", "-noF", "-noX")
	label := func(path string) string { return "containerd.io/snapshot/ublk-loop.image=" + path }
	c.sleeps("image", "--snapshotter-label", label(image))
	c.devicesAre(2)
	if out := c.exec("image", "cat /content; grep ' / ' /proc/mounts"); !strings.HasPrefix(out, "of the base layer/dev/ublkb") || !strings.Contains(out, " / squashfs ro,") {
		c.Errorf("a container prints %s", out)
	}
	c.killAll("image")
	c.ctr("container", "rm", "image")
	c.devicesAre(1)

	outside := filepath.Join(c.dir, "outside")
	c.tool("cp", image, outside)
	c.tool("ln", "-s", outside, filepath.Join(c.images, "link"))
	for _, path := range []string{outside, filepath.Join(c.images, "link")} {
		if out, err := c.try("run", "--rm", "--snapshotter-label", label(path), imageName, "refused", "cat", "/content"); err == nil || !strings.Contains(out, "ublk-loop.image") {
			c.Errorf("image %q: %v: %s", path, err, out)
		}
		_, _ = c.try("container", "rm", "refused") // containerd made the container before its snapshot was refused
	}
	if out := c.ctr("snapshot", "ls"); strings.Contains(out, "refused") {
		c.Errorf("snapshots are\n%s", out)
	}
}

// killAll kills the process of a container and its shim, and waits until containerd has
// noticed. containerd then has 5 seconds to unmount the root directory, which can be too
// short in emulation.
func (c *containerd) killAll(id string) {
	c.Helper()
	pid := c.pid(id)
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		c.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(stat), ") ") // skips to state and parent
	shim, err := strconv.Atoi(strings.Fields(rest)[1])
	if err != nil || pid <= 1 || shim <= 1 {
		c.Fatalf("container %s is process %d, child of %d: %v", id, pid, shim, err)
	}
	for _, p := range []int{shim, pid} {
		if err := unix.Kill(p, unix.SIGKILL); err != nil {
			c.Error(err)
		}
	}
	c.until("containerd has forgotten the container's process", func() bool { return !strings.Contains(c.ctr("task", "ls", "-q"), id) })
	root := filepath.Join(stateDir, "io.containerd.runtime.v2.task/default", id, "rootfs")
	deadline := time.Now().Add(10 * time.Second)
	c.until("containerd has unmounted the container", func() bool {
		if time.Now().After(deadline) && unix.Unmount(root, 0) == nil {
			c.Logf("containerd has left %s mounted", root)
		}
		return !slices.Contains(mounts(c), root)
	})
}

// testSnapshotterKilled checks that a container continues while the snapshotter is dead,
// and that the next snapshotter can start the stopped containers.
func (c *containerd) testSnapshotterKilled() {
	c.Helper()
	c.sleeps("running")
	c.exec("running", "echo before >/second")
	c.devicesAre(2)
	c.snapshotter.end(unix.SIGKILL)
	c.devicesAre(1) // the device of the running container is mounted
	mounted := c.devices()[0].Device
	c.exec("running", "echo after >>/second; sync")
	if err := os.Remove(snapshotterSocket); err != nil { // startSnapshotter waits for the new socket
		c.Fatal(err)
	}
	c.startSnapshotter()
	c.until("containerd has connected again", func() bool {
		_, err := c.try("snapshot", "mounts", "/x", "kept")
		return err == nil
	})
	if out := c.printed([]string{"task", "start"}, "kept"); out != "again\n" {
		c.Errorf("at its second start a container finds %q", out)
	}
	if out := c.ctr("snapshot", "mounts", "/x", "running"); !strings.Contains(out, " "+mounted+" ") {
		c.Errorf("a snapshot that is mounted from %s is to be mounted by %s", mounted, out)
	}
	if out := c.exec("running", "cat /second"); out != "before\nafter\n" {
		c.Errorf("a container that went on finds %q", out)
	}
	c.ctr("task", "rm", "--force", "running")
	c.devicesAre(2) // attached by the new snapshotter
	c.ctr("container", "rm", "running")
	c.devicesAre(1)
}

// testServerStopped stops the server of devices and starts it again.
func (c *containerd) testServerStopped() {
	c.Helper()
	c.server.end(unix.SIGTERM)
	if out, err := c.try("task", "start", "kept"); err == nil || !strings.Contains(out, "no server") {
		c.Errorf("started without a server: %v: %s", err, out)
	}
	c.serve()
	if out := c.printed([]string{"task", "start"}, "kept"); out != "again\nagain\n" {
		c.Errorf("at its third start a container finds %q", out)
	}
}

// testCommit checks that a committed snapshot has no device. A view of it has a device
// until it is unmounted, even if the view was removed before.
func (c *containerd) testCommit() {
	c.Helper()
	c.ctr("snapshot", "commit", "saved", "kept")
	c.devicesAre(0)
	dir := filepath.Join(c.dir, "saved")
	c.mkdir(dir)
	c.tool("sh", "-c", c.ctr("snapshot", "view", "--target", dir, "shown", "saved"))
	// A removal makes containerd remove what nothing refers to, such as this view. So it
	// comes after the mount.
	c.ctr("container", "rm", "--keep-snapshot", "kept")
	if text, err := os.ReadFile(filepath.Join(dir, "second")); err != nil || string(text) != "again\nagain\nagain\n" {
		c.Errorf("the snapshot has %q, error %v", text, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "new"), nil, 0o600); err == nil {
		c.Error("a view can be written to")
	}
	_, _ = c.try("snapshot", "rm", "shown") // containerd may have removed it already, because nothing refers to it
	if _, err := os.ReadFile(filepath.Join(dir, "second")); err != nil || len(c.devices()) != 1 {
		c.Errorf("a view that is mounted: %v, %d devices", err, len(c.devices()))
	}
	c.tool("umount", dir)
	c.removeAnother()
	c.devicesAre(0)
}
