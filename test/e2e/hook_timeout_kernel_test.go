package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// stopsRuntime is a hook that calls ublk-loop, writes the ids of the container's process and of
// its own to a file, and stops the runtime.
const stopsRuntime = `#!/bin/sh
state=$(cat)
echo "$state" | "%PROGRAM%" "$@" || exit
container=$(echo "$state" | tr -d ' \n\t' | sed 's/.*"pid":\([0-9]*\).*/\1/')
kill -STOP $PPID
echo "$container $$" >"$0.new" && mv "$0.new" "$0.pids"
`

// A container that ends while the runtime waits for its hook poststart has not failed.
func TestKernelHookEndsWithContainer(t *testing.T) {
	ublktest.Require(t, ublktest.Once)
	withRuntimes(t, []string{"crun"}, hooked, byHooks(func(w *wrapped) {
		hook := filepath.Join(w.TempDir(), "hook")
		w.write(hook, strings.ReplaceAll(stopsRuntime, "%PROGRAM%", w.bin), 0o755)
		bundle := w.bundle(asked{"image": w.imageOf("ext4", rootTree(w, "x"))}, "cat", "/content")
		w.precreate(bundle)
		w.editBundle(bundle, func(config map[string]any) { w.replacePoststart(config, hook) })
		var out bytes.Buffer
		cmd := w.call("run", "--bundle", bundle, "c")
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Start(); err != nil {
			w.Fatal(err)
		}
		defer func() {
			if cmd.ProcessState == nil { // the test has failed
				_, _ = cmd.Process.Kill(), cmd.Wait()
				ublktest.Detail(w, "the runtime prints %q", out.String())
			}
		}()
		var container, own int
		ublktest.Until(w, waitLimit, "the hook and the container have ended", func() bool {
			pids, _ := os.ReadFile(hook + ".pids")
			_, err := fmt.Sscan(string(pids), &container, &own)
			return err == nil && hasEnded(container) && hasEnded(own)
		}, func() string {
			text := "the runtime, the container and the hook:"
			for _, pid := range []int{cmd.Process.Pid, container, own} {
				stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
				text += fmt.Sprintf("\n%d: %s (%v)", pid, stat, err)
			}
			return text
		})
		if err := unix.Kill(cmd.Process.Pid, unix.SIGCONT); err != nil {
			w.Fatal(err)
		}
		if err := cmd.Wait(); err != nil || out.String() != "x" {
			w.Errorf("the container prints %q, error %v", out.String(), err)
		}
		w.nothingLeft()
	}))
}

// replacePoststart replaces the program of the only hook poststart.
func (w *wrapped) replacePoststart(config map[string]any, program string) {
	w.Helper()
	hooks, _ := config["hooks"].(map[string]any)
	poststart, _ := hooks["poststart"].([]any)
	if len(poststart) != 1 {
		w.Fatalf("hooks are %v", hooks)
	}
	if entry, ok := poststart[0].(map[string]any); ok {
		entry["path"] = program
	}
}

// hasEnded reports whether a process has ended, whether or not its parent knows. The runtime may have waited for its hook
// before it stops: the signal that stops it also ends its wait, which first looks for children that have ended (do_wait in
// kernel/exit.c).
func hasEnded(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) {
		return true
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return err == nil && strings.HasPrefix(rest, "Z")
}
