package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// A command in a namespace is root there, has a /run of its own, and the same name service.
func TestInNamespace(t *testing.T) {
	if !hasNamespaces() {
		ublktest.MachineLacks(t, "user namespaces")
	}
	name := filepath.Base(t.TempDir())
	words := inNamespace("sh", "-c", `echo "user $(id -u), has $(ls /run/ublk-loop)"; mkdir "/run/ublk-loop"; touch "/run/ublk-loop/$1"; cat /etc/resolv.conf`, "sh", "x"+name)
	out, err := exec.Command(words[0], words[1:]...).Output()
	resolve, _ := os.ReadFile("/etc/resolv.conf")
	if err != nil || !strings.HasPrefix(string(out), "user 0, has \n") || !strings.HasSuffix(string(out), "has \n"+string(resolve)) {
		t.Errorf("%v, prints %q; the name service is %q", err, out, resolve)
	}
	if _, err := os.Stat("/run/ublk-loop/x" + name); err == nil {
		t.Error("its /run is this machine's")
	}
}
