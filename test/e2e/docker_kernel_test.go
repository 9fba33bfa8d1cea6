package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// docker is a daemon with its own store, and an engine image without files.
type docker struct {
	*wrapped
	client string
	socket string
	image  string // the image for the containers' root
}

// docker starts a daemon with the programs in a directory. Its containers may get their
// roots by ublk-runc.
func (w *wrapped) docker(engines string) *docker {
	w.Helper()
	dir, err := os.MkdirTemp("", "docker") // the length of a socket's path is limited
	if err != nil {
		w.Fatal(err)
	}
	w.apart = dir
	d := &docker{wrapped: w, client: engines + "/docker/docker", socket: "unix://" + dir + "/sock"}
	config := dir + "/daemon.json"
	w.write(config, fmt.Sprintf(`{
		"runtimes": {"ublk-runc": {"path": %q}},
		"data-root": "%[2]s/data", "exec-root": "%[2]s/exec", "pidfile": "%[2]s/pid", "hosts": [%[3]q],
		"storage-driver": "vfs", "exec-opts": ["native.cgroupdriver=cgroupfs"],
		"log-level": "warn", "bridge": "none", "iptables": false, "ip6tables": false, "userland-proxy": false
	}`, w.wrapper, dir, d.socket), 0o644)
	w.startDaemon(engines+"/containerd", engines+"/docker/dockerd", "--config-file", config)
	waitUntil(w, "docker answers", func() bool { return d.calls("version").status == 0 })

	empty := w.TempDir()
	w.tool("tar", "-C", empty, "-c", "-f", dir+"/empty.tar", ".")
	d.does("import", dir+"/empty.tar", "empty")
	d.image = w.imageWithMountPoints()
	return d
}

// imageWithMountPoints makes a read-only image with the files on which engines mount.
func (w *wrapped) imageWithMountPoints() string {
	w.Helper()
	tree := rootTree(w, "of the image\n")
	for _, name := range []string{"hosts", "hostname", "resolv.conf"} {
		w.write(filepath.Join(tree, "etc", name), "", 0o644)
	}
	return w.imageOf("squashfs", tree)
}

// startDaemon starts an engine, which finds its other programs in a directory. The engine
// ends with the test.
func (w *wrapped) startDaemon(others, program string, args ...string) {
	w.Helper()
	log, err := os.Create(filepath.Join(w.TempDir(), "log"))
	if err != nil {
		w.Fatal(err)
	}
	daemon := exec.Command(program, args...)
	daemon.Env = append(os.Environ(), "PATH="+others+":"+os.Getenv("PATH"))
	daemon.Stdout, daemon.Stderr = log, log
	if err := daemon.Start(); err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() {
		_ = daemon.Process.Signal(unix.SIGTERM)
		_ = daemon.Wait()
		if text, err := os.ReadFile(log.Name()); err == nil && w.Failed() {
			ublktest.Detail(w, "log of %s:\n%s", program, text)
		}
		_ = log.Close()
		_ = os.RemoveAll(w.apart)
	})
}

// calls calls docker, which may fail.
func (d *docker) calls(args ...string) result {
	d.Helper()
	return d.outlived(exec.Command(d.client, append([]string{"--host", d.socket}, args...)...))
}

// does calls docker, which must succeed, and returns its output.
func (d *docker) does(args ...string) string {
	d.Helper()
	r := d.calls(args...)
	if r.status != 0 {
		d.Fatalf("docker %q: exit status %d\n%s%s", args, r.status, r.out, r.err)
	}
	return r.out
}

// run returns the arguments of docker run for a container with a root from an image,
// followed by a command.
func (d *docker) run(image string, args ...string) []string {
	return append([]string{
		"run", "--runtime", "ublk-runc", "--network", "none",
		"--annotation", "dev.ublk-loop.rootfs.image=" + image,
	}, args...)
}

func TestKernelDocker(t *testing.T) {
	ublktest.Require(t, ublktest.Engines, ublktest.Once)
	dir := engines(t) // mounts the engines before the test counts mounts
	d := kernelBed(t).wrap("runc").docker(filepath.Dir(dir))

	r := d.calls(d.run(d.image, "--rm", "empty", "sh", "-c", "cat /content /proc/mounts; exit 42")...)
	if r.status != 42 || !strings.HasPrefix(r.out, "of the image\n") || !strings.Contains(r.out, " / squashfs ro,") {
		t.Errorf("exit status %d, the container prints %s%s", r.status, r.out, r.err)
	}
	for _, masked := range []string{" /proc/keys ", " /proc/sys proc ro"} {
		if !strings.Contains(r.out, masked) {
			t.Errorf("%q is not masked:\n%s", masked, r.out)
		}
	}
	d.nothingLeft()

	d.does(d.run(d.image, "--detach", "--name", "web", "empty", "sleep", "1000")...)
	d.devicesAre(1)
	if out := d.does("exec", "web", "cat", "/content"); out != "of the image\n" {
		t.Errorf("exec prints %q", out)
	}
	if r := d.calls(d.run(d.image, "--name", "web", "empty", "true")...); r.status != 125 {
		t.Errorf("a second container of the same name: exit status %d: %s", r.status, r.err)
	}
	d.does("restart", "--time", "0", "web")
	d.devicesAre(1)
	pid, err := strconv.Atoi(strings.TrimSpace(d.does("inspect", "--format", "{{.State.Pid}}", "web")))
	if err != nil || pid <= 1 {
		t.Fatalf("the container's process is %d: %v", pid, err)
	}
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Error(err)
	}
	d.nothingLeft()
	d.does("start", "web")
	d.devicesAre(1)
	d.does("rm", "--force", "web")
	d.nothingLeft()

	if r := d.calls(d.run(d.images+"/nothing", "--rm", "empty", "true")...); r.status != 125 || !strings.Contains(r.err, "rootfs image unavailable: ") {
		t.Errorf("without an image: exit status %d: %s", r.status, r.err)
	}
	if r := d.calls(d.run(d.image, "--rm", "empty", "/not/there")...); r.status != 127 {
		t.Errorf("a command that is not there: exit status %d: %s", r.status, r.err)
	}
}
