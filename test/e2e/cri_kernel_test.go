package e2e

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// cri is containerd in the configuration of Kubernetes.
type cri struct {
	*wrapped
	dir    string
	client string
	socket string
}

// criImage is the engine's image of containers and sandboxes. Its command sleeps.
const criImage = "localhost/box:1"

// cri starts containerd with a runtime class for ublk-loop, as docs/containers.md
// describes.
func (w *wrapped) cri(engines string) *cri {
	w.Helper()
	dir, err := os.MkdirTemp("", "cri") // the length of a socket's path is limited
	if err != nil {
		w.Fatal(err)
	}
	w.apart = dir
	c := &cri{wrapped: w, dir: dir, client: engines + "/containerd/crictl", socket: dir + "/sock"}
	w.write(dir+"/config.toml", fmt.Sprintf(`version = 2
root = "%[1]s/root"
state = "%[1]s/state"
[grpc]
address = %[2]q
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = %[3]q
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "native"
default_runtime_name = "ublk"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.ublk]
runtime_type = "io.containerd.runc.v2"
pod_annotations = ["dev.ublk-loop.*"]
container_annotations = ["dev.ublk-loop.*"]
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.ublk.options]
BinaryName = %[4]q
`, dir, c.socket, criImage, w.wrapper), 0o644)
	w.hostFiles()
	w.startDaemon(engines+"/containerd", engines+"/containerd/containerd", "--config", dir+"/config.toml", "--log-level", "warn")
	waitUntil(w, "containerd answers", func() bool { return c.calls("version").status == 0 })
	w.tool(engines+"/containerd/ctr", "--address", c.socket, "--namespace", "k8s.io", "image", "import", c.archive())
	return c
}

// hostFiles makes the files of the host that the engine copies for a sandbox in the
// host's network.
func (w *wrapped) hostFiles() {
	w.Helper()
	for _, path := range []string{"/etc/hosts", "/etc/resolv.conf"} {
		if _, err := os.Stat(path); err != nil {
			w.write(path, "", 0o644)
			w.Cleanup(func() { _ = os.Remove(path) })
		}
	}
}

// archive makes an archive of criImage in the format of docker save.
func (c *cri) archive() string {
	c.Helper()
	layer := c.dir + "/layer.tar"
	c.tool("tar", "-C", rootTree(c, "of the engine\n"), "-c", "-f", layer, ".")
	text, err := os.ReadFile(layer)
	if err != nil {
		c.Fatal(err)
	}
	path := c.dir + "/image.tar"
	f, err := os.Create(path)
	if err != nil {
		c.Fatal(err)
	}
	defer f.Close()
	archive := tar.NewWriter(f)
	for _, file := range []struct{ name, text string }{
		{"manifest.json", fmt.Sprintf(`[{"Config": "config.json", "RepoTags": [%q], "Layers": ["layer.tar"]}]`, criImage)},
		{"config.json", fmt.Sprintf(`{"architecture": "amd64", "os": "linux", "config": {"Cmd": ["/bin/sleep", "10000"]},
			"rootfs": {"type": "layers", "diff_ids": ["sha256:%x"]}}`, sha256.Sum256(text))},
		{"layer.tar", string(text)},
	} {
		if err := archive.WriteHeader(&tar.Header{Name: file.name, Mode: 0o644, Size: int64(len(file.text))}); err != nil {
			c.Fatal(err)
		}
		if _, err := io.WriteString(archive, file.text); err != nil {
			c.Fatal(err)
		}
	}
	if err := archive.Close(); err != nil {
		c.Fatal(err)
	}
	return path
}

// calls calls crictl, which may fail.
func (c *cri) calls(args ...string) result {
	c.Helper()
	return c.outlived(exec.Command(c.client, append([]string{
		"--config", "/dev/null", "--runtime-endpoint", "unix://" + c.socket, "--image-endpoint", "unix://" + c.socket, "--timeout", "60s",
	}, args...)...))
}

// does calls crictl, which must succeed, and returns its output without surrounding
// space.
func (c *cri) does(args ...string) string {
	c.Helper()
	r := c.calls(args...)
	if r.status != 0 {
		c.Fatalf("crictl %q: exit status %d\n%s%s", args, r.status, r.out, r.err)
	}
	return strings.TrimSpace(r.out)
}

// file writes an object to a file for crictl.
func (c *cri) file(name string, object any) string {
	c.Helper()
	text, err := json.Marshal(object)
	if err != nil {
		c.Fatal(err)
	}
	path := filepath.Join(c.dir, name+".json")
	c.write(path, string(text), 0o644)
	return path
}

// pod starts a pod in the host's network, with annotations that ask for an image. It
// returns the pod's id and file.
func (c *cri) pod(name, image string) (id, file string) {
	c.Helper()
	const hostNetwork = 2 // NODE in api.proto of CRI
	file = c.file(name, map[string]any{
		"metadata":      map[string]any{"name": name, "namespace": "default", "uid": name},
		"annotations":   map[string]string{"dev.ublk-loop.rootfs.image": image},
		"log_directory": c.dir,
		"linux":         map[string]any{"security_context": map[string]any{"namespace_options": map[string]any{"network": hostNetwork}}},
	})
	return c.does("runp", "--runtime", "ublk", file), file
}

// container makes a container in a pod, and returns its id.
func (c *cri) container(pod, podFile, name string) string {
	c.Helper()
	file := c.file(name, map[string]any{
		"metadata": map[string]any{"name": name},
		"image":    map[string]any{"image": criImage},
		"command":  []string{"sleep", "1000"},
		"log_path": name + ".log",
		"linux":    map[string]any{},
	})
	return c.does("create", pod, file, podFile)
}

// A pod's annotations also reach its sandbox, which keeps its own root. Each container
// gets the root from the image.
func TestKernelCRI(t *testing.T) {
	ublktest.Require(t, ublktest.Engines, ublktest.Snapshotter, ublktest.Once)
	dir := engines(t) // mounts the engines before the test counts mounts
	c := kernelBed(t).wrap("runc").cri(filepath.Dir(dir))
	pod, file := c.pod("pod", c.imageWithMountPoints())
	c.devicesAre(0)

	web := c.container(pod, file, "web")
	c.does("start", web)
	c.devicesAre(1)
	if out := c.does("exec", "--sync", web, "cat", "/content"); out != "of the image" {
		t.Errorf("the container has the file %q", out)
	}
	pid, err := strconv.Atoi(c.does("inspect", "--output", "go-template", "--template", "{{.info.pid}}", web))
	if err != nil || pid <= 1 {
		t.Fatalf("the container's process is %d: %v", pid, err)
	}
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Error(err)
	}
	c.devicesAre(0)

	second := c.container(pod, file, "second")
	c.does("start", second)
	c.devicesAre(1)
	c.does("rmp", "--force", pod)
	c.nothingLeft()

	pod, file = c.pod("bad", c.images+"/nothing")
	r := c.calls("start", c.container(pod, file, "none"))
	if r.status == 0 || !strings.Contains(r.err, "rootfs image unavailable: ") {
		t.Errorf("without an image: exit status %d: %s", r.status, r.err)
	}
	c.does("rmp", "--force", pod)
}
