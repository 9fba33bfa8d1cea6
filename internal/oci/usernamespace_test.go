package oci

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// inGroup starts a process whose user namespace has one group. It returns the path of the
// namespace and the host's group.
func inGroup(t *testing.T, id int) (path string, group int) {
	t.Helper()
	group = os.Getgid()
	if ublktest.HasOtherUsers() {
		group = 100000
	}
	cmd := exec.Command("cat")
	cmd.SysProcAttr = &unix.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER,
		GidMappings: []syscall.SysProcIDMap{{ContainerID: id, HostID: group, Size: 1}},
	}
	in, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		ublktest.MachineLacks(t, "user namespaces: "+err.Error())
	}
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait()
	})
	return fmt.Sprintf("/proc/%d/ns/user", cmd.Process.Pid), group
}

// joining returns a configuration as podman writes it for a container that joins an
// existing namespace.
func joining(path string) string {
	const format = `{"linux":{"namespaces":[{"type":"user","path":%q}],"gidMappings":[{"containerID":0,"hostID":0,"size":1}]}}`
	return fmt.Sprintf(format, path)
}

func TestPassage(t *testing.T) {
	const failed = "failed"
	check := func(text, want string) {
		t.Helper()
		c, err := parseConfig([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		p, err := c.passage()
		got := fmt.Sprintf("%o for group %d", p.mode, p.group)
		switch {
		case errors.Is(err, unix.EOPNOTSUPP):
			got = "refused"
		case err != nil:
			got = failed
		}
		if got != want {
			t.Errorf("%s: %s, error %v, want %s", text, got, err, want)
		}
	}
	for text, want := range map[string]string{
		`{}`:             "700 for group 0",
		`{"linux":null}`: "700 for group 0",
		`{"linux":{"namespaces":[{"type":"mount"}],"gidMappings":[{"containerID":0,"hostID":5,"size":1}]}}`:                                     "700 for group 0",
		`{"linux":{"namespaces":[{"type":"mount"},{"type":"user"}],"gidMappings":[{"containerID":1,"hostID":4},{"containerID":0,"hostID":5}]}}`: "710 for group 5",
		`{"linux":{"namespaces":[{"type":"user"}],"gidMappings":[{"containerID":1,"hostID":4,"size":1}]}}`:                                      "refused",
		`{"linux":{"namespaces":[{"type":"user"}],"gidMappings":[{"containerID":0,"hostID":4294967295,"size":1}]}}`:                             "refused",
		`{"linux":{"namespaces":{}}}`: failed,
	} {
		check(text, want)
	}
	for _, path := range []string{"/run/x", "/proc/self/ns/user", "/proc/1/../1/ns/user", "/proc/0/ns/user"} {
		check(joining(path), "refused")
	}
	check(joining("/proc/4194305/ns/user"), failed) // larger than any pid
}

// The group of an existing namespace comes from the namespace, not from the
// configuration.
func TestPassageToAnother(t *testing.T) {
	for id, known := range map[int]bool{0: true, 1: false} {
		path, group := inGroup(t, id)
		c, err := parseConfig([]byte(joining(path)))
		if err != nil {
			t.Fatal(err)
		}
		p, err := c.passage()
		if known && (err != nil || p != passage{0o710, group}) || !known && !errors.Is(err, unix.EOPNOTSUPP) {
			t.Errorf("group %d in there is %d: %+v, error %v", id, group, p, err)
		}
	}
}
