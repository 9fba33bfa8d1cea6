package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk"
)

// replacedRole is the first argument of the program of an upgrade.
const replacedRole = "server-of-serve"

// stopAndExecute is the program of an upgrade that finds devices whose removal has begun: it stops all devices, and
// executes the real program, which is beside this one. It returns only an error.
func stopAndExecute(args []string) error {
	ctl, err := ublk.OpenControl()
	if err != nil {
		return err
	}
	infos, err := ctl.List()
	for _, info := range infos {
		err = errors.Join(err, ctl.Stop(info.ID))
	}
	if err := errors.Join(err, ctl.Close()); err != nil {
		return err
	}
	fd, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	text := make([]byte, 1<<20)
	n, err := unix.Pread(fd, text, 0) // the real program reads it from its start
	if err != nil {
		return err
	}
	var message struct {
		Task        struct{ Program string }
		Descriptors map[string]struct{ FD int }
	}
	if err := json.Unmarshal(text[:n], &message); err != nil {
		return err
	}
	// The server does not have the mounts of the test, except through this descriptor.
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT}
	program, err := unix.Openat2(message.Descriptors["root"].FD, message.Task.Program+".real", &how)
	if err != nil {
		return err
	}
	return unix.Exec(fmt.Sprintf("/proc/self/fd/%d", program), args, nil)
}

// If a device loses its disk while a server is replaced, for example because it is no longer in use, the next program
// completes its removal. Otherwise the device would stay, and del would wait for the server.
func TestKernelUpgradeEnded(t *testing.T) {
	b := kernelBed(t)
	installed, path := b.bin, filepath.Join(t.TempDir(), "ublk-loop")
	b.tool("cp", b.bin, path)
	b.tool("cp", b.bin, path+".real")
	b.bin = path
	m := b.serve("--on-crash=reissue")
	b.add(b.image(1 << 20))
	b.tool("cp", b.self(), path+".new")
	b.tool("mv", path+".new", path)
	b.bin = installed
	b.ok("upgrade")
	if list := b.list(); len(list) != 0 {
		t.Errorf("the device is still there: %+v", list)
	}
	if left, err := filepath.Glob("/run/ublk-loop/[0-9]*"); err != nil || len(left) > 0 {
		t.Errorf("left are %v, error %v", left, err)
	}
	if list, err := os.ReadDir("/run/ublk-loop/locks"); err == nil && len(list) > 0 {
		t.Errorf("a lock is left: %v", list)
	}
	m.stop()
}
