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

	"github.com/ublk-loop/ublk-loop/cmd/ublk-loop/hooks.d"
)

// podman is an engine with its own store.
type podman struct {
	*wrapped
	program string
	dir     string
	runtime string
	image   string
	log     *hookLog
}

// podman returns an engine whose containers get their roots from the wrapper of a
// runtime, or from hooks. The programs are this machine's, or with "-trixie" those of
// another release.
func (w *wrapped) podman(runtime, release string, byHooks bool) *podman {
	w.Helper()
	dir := engines(w)
	store, err := os.MkdirTemp("", "podman") // the length of a socket's path is limited
	if err != nil {
		w.Fatal(err)
	}
	p := &podman{wrapped: w, program: dir + "/podman" + release, dir: store, runtime: "ublk-" + runtime}
	w.apart = p.dir
	p.log = systemLog(w)
	hooksDir := filepath.Join(p.dir, "hooks.d")
	for _, d := range []string{hooksDir, p.dir + "/empty"} {
		if err := os.Mkdir(d, 0o755); err != nil {
			w.Fatal(err)
		}
	}
	if byHooks {
		p.runtime = runtime
		w.write(hooksDir+"/ublk-loop.json", strings.ReplaceAll(hooks.Podman, "/usr/bin/ublk-loop", w.bin), 0o644)
	}
	// The containers have no network, but podman requires a network backend.
	helpers, network := "/", "cni"
	if release != "" {
		helpers, network = filepath.Join(dir, "..", release[1:]), "netavark"
	}
	w.write(p.dir+"/containers.conf", fmt.Sprintf(`[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
conmon_path = [%q]
hooks_dir = [%q]
helper_binaries_dir = [%q]
[engine.runtimes]
%s = [%q]
ublk-%s = [%q]
[network]
network_backend = %q
`, dir+"/conmon"+release, hooksDir, helpers, runtime, w.real, runtime, w.wrapper, network), 0o644)
	tree := rootTree(w, "of the image\n")
	w.tool("chmod", "1777", tree+"/tmp")
	// podman mounts on these files, so that a read-only image must have them.
	for _, name := range []string{"etc/hosts", "etc/hostname", "etc/resolv.conf", "etc/mtab", "run/.containerenv"} {
		w.write(filepath.Join(tree, name), "", 0o644)
	}
	p.image = w.imageOf("squashfs", tree)
	w.Cleanup(func() {
		_ = p.calls("rm", "--force", "--all", "--time", "0")
		_ = os.RemoveAll(p.dir)
	})
	return p
}

// calls calls podman, which may fail.
func (p *podman) calls(args ...string) result {
	p.Helper()
	return p.outlived(p.command(args...))
}

func (p *podman) command(args ...string) *exec.Cmd {
	args = append([]string{
		"--root", p.dir + "/root", "--runroot", p.dir + "/runroot", "--tmpdir", p.dir + "/tmp",
		"--storage-driver", "vfs", "--runtime", p.runtime,
	}, args...)
	cmd := exec.Command(p.program, args...)
	cmd.Env = append(os.Environ(), "CONTAINERS_CONF="+p.dir+"/containers.conf")
	return cmd
}

// processesNamed returns the processes of a program.
func processesNamed(t testing.TB, name string) (pids []int) {
	t.Helper()
	paths, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		text, _ := os.ReadFile(path) // nothing if the process has ended
		if strings.TrimSpace(string(text)) != name {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, pid)
	}
	return pids
}

// does calls podman, which must succeed, and returns its output.
func (p *podman) does(args ...string) string {
	p.Helper()
	r := p.calls(args...)
	if r.status != 0 {
		p.Fatalf("podman %q: exit status %d\n%s%s", args, r.status, r.out, r.err)
	}
	return r.out
}

// container returns the arguments of podman run or create for a container with
// annotations, without the container's command.
func (p *podman) container(verb string, ask asked, flags ...string) []string {
	args := []string{verb, "--network", "none", "--security-opt", "seccomp=unconfined"}
	for name, value := range ask {
		args = append(args, "--annotation", "dev.ublk-loop.rootfs."+name+"="+value)
	}
	return append(append(args, flags...), "--rootfs", p.dir+"/empty")
}

// kills kills processes of a container: "Pid" is the first one, "ConmonPid" its monitor.
func (p *podman) kills(name string, which ...string) {
	p.Helper()
	format := ""
	for _, process := range which {
		format += "{{.State." + process + "}} "
	}
	var pids []int
	for _, text := range strings.Fields(p.does("inspect", "--format", format, name)) {
		pid, err := strconv.Atoi(text)
		if err != nil || pid <= 1 {
			p.Fatalf("a process of %s is %q, error %v", name, text, err)
		}
		pids = append(pids, pid)
	}
	for _, pid := range pids {
		if err := unix.Kill(pid, unix.SIGKILL); err != nil {
			p.Error(err)
		}
	}
}

// fails calls podman, which must fail, and sweeps the mount that may be left by a runtime
// that does not call poststop then.
func (p *podman) fails(args ...string) result {
	p.Helper()
	r := p.calls(args...)
	if r.status == 0 {
		p.Errorf("podman %q succeeds: %s", args, r.out)
	}
	p.sweepAll()
	p.nothingHooked()
	return r
}
