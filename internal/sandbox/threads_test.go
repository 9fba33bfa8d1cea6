package sandbox

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

func TestLeastBound(t *testing.T) {
	machine := map[string]string{"proc/sys/kernel/threads-max": "7000\n", "proc/sys/kernel/pid_max": "32768\n"}
	for _, tt := range []struct {
		name  string
		files map[string]string
		want  uint64
	}{
		{"nothing to read", nil, unix.RLIM_INFINITY},
		{"machine", machine, 7000},
		{"own cgroup", map[string]string{
			"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/pids.max": "200\n", "sys/fs/cgroup/a/pids.max": "max\n",
		}, 200},
		{"cgroup above", map[string]string{
			"proc/self/cgroup": "0::/a/b:c\n", "sys/fs/cgroup/a/b:c/pids.max": "max\n", "sys/fs/cgroup/a/pids.max": "100\n",
		}, 100},
		{"root of a cgroup namespace", map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/pids.max": "50\n"}, 50},
		{"version 1", map[string]string{
			"proc/self/cgroup":                 "3:cpu,pids:/a\n2:memory:/b\n0::/\n",
			"sys/fs/cgroup/pids/a/pids.max":    "60\n",
			"sys/fs/cgroup/pids/b/pids.max":    "10\n",
			"sys/fs/cgroup/memory/b/pids.max":  "10\n",
			"sys/fs/cgroup/pids/pids.max":      "70\n",
			"sys/fs/cgroup/unified/a/pids.max": "10\n",
		}, 60},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := t.TempDir()
			for name, text := range tt.files {
				file := filepath.Join(root, name)
				if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), 0o600)); err != nil {
					t.Fatal(err)
				}
			}
			if got := leastBound(root); got != tt.want {
				t.Errorf("at most %d threads, want %d", got, tt.want)
			}
		})
	}
}

// These are first arguments of the test program as another process.
const (
	crowdedRole = "crowded" // a starter in a cgroup, which a process of swarmRole tries to fill
	swarmRole   = "swarm"   // LimitThreads, and then as many processes as possible
)

// crowded starts a swarm in a cgroup that allows some threads, and then threads. It must have a mount namespace of its own.
func crowded() error {
	const root, group, most = "/sys/fs/cgroup", "/sys/fs/cgroup/crowded", "200"
	set := func(file, value string) error { return os.WriteFile(file, []byte(value), 0) }
	if err := unix.Mount("none", root, "cgroup2", 0, ""); err != nil && !errors.Is(err, unix.EBUSY) { // mounted already
		return err
	}
	if err := errors.Join(set(root+"/cgroup.subtree_control", "+pids"), os.Mkdir(group, 0o755)); err != nil {
		return err
	}
	if err := errors.Join(set(group+"/pids.max", most), set(group+"/cgroup.procs", "0")); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return err
	}
	hold, end, err := os.Pipe()
	if err != nil {
		return err
	}
	err = swarmed(hold)
	_ = end.Close()
	for { // until none of the swarm is left
		if _, err := unix.Wait4(-1, nil, 0, nil); errors.Is(err, unix.ECHILD) {
			break
		}
	}
	return errors.Join(err, set(root+"/cgroup.procs", "0"), os.Remove(group))
}

// swarmed starts a swarm whose processes last as long as their input, and then some threads at once.
func swarmed(input *os.File) error {
	const user, threads, processes = 0x6ffffffe, 30, 100
	swarm := exec.Command("/proc/self/exe", swarmRole, "")
	swarm.Stdin = input
	swarm.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: user, Gid: user}}
	said, err := swarm.Output() // its runtime may end it when there is no thread left
	if n := strings.Count(string(said), "\n"); n < processes {
		return fmt.Errorf("the swarm has %d processes, want %d or more: %w", n, processes, err)
	}
	started, end := make(chan struct{}), make(chan struct{})
	for range threads {
		startThread(func() { // ends with end
			started <- struct{}{}
			<-end
		})
	}
	for range threads {
		<-started
	}
	close(end)
	return nil
}

// swarm starts processes until it can start no more. It says a line for each.
func swarm() error {
	if err := LimitThreads(); err != nil {
		return err
	}
	for {
		p := exec.Command("cat")
		p.Stdin = os.Stdin
		if err := p.Start(); err != nil {
			return err
		}
		fmt.Println(p.Process.Pid)
	}
}

// A process that has limited its threads can fill its cgroup as far as it may, and its starter can still start threads.
func TestKernelLimitThreads(t *testing.T) {
	ublktest.Kernel(t, ublktest.Once)
	cmd := exec.Command("/proc/self/exe", crowdedRole, "")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%.2000s", err, out)
	}
}
