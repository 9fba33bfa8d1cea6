package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// inGuest is a shell script that runs a test in the guest. It prints the output of the
// test, then the coverage profile.
const inGuest = `cd /vm/tests && ./test "$@"
status=$?
echo "$0"
[ ! -e /tmp/profile ] || grep -v ' 0$' /tmp/profile
exit $status`

const (
	profileFollows = "== coverage profile"
	bootTime       = time.Minute // the time for the start and the end of a guest
)

// died are the messages of vm.sh about a guest that started but did not end well.
var died = []string{"panicked", "ended without an exit status", "did not end within"}

// buildKernel builds the kernel for the cache before the first test, so that the time
// limit of a test does not include the build.
func buildKernel(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, filepath.Join("scripts", "vm-kernel.sh"), "uml")
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("user-mode kernel: %w", err)
	}
	return nil
}

// launchInGuest runs a test as root in a user-mode kernel that runs only this test.
func launchInGuest(ctx context.Context, e *execution) ([]byte, error) {
	flags := append([]string{"-test.timeout=" + e.limit.String()}, e.flags...)
	if e.profile != "" {
		flags = append(flags, "-test.coverprofile=/tmp/profile")
	}
	files := []string{"--file", e.binary + ":/vm/tests/test"}
	if data := filepath.Join(e.pkg.dir, "testdata"); isDirectory(data) {
		files = append(files, "--dir", data+":/vm/tests/testdata")
	}
	arguments := append([]string{"run", "uml", "--timeout", fmt.Sprint(int((e.limit + bootTime).Seconds())), "--console", os.DevNull}, files...)
	arguments = append(arguments, "--", "env", "UBLK_LOOP_HAS=own,plain", "sh", "-c", inGuest, profileFollows)
	out, err := finish(ctx, func(ctx context.Context) (*exec.Cmd, error) {
		cmd := exec.CommandContext(ctx, filepath.Join("scripts", "vm.sh"), append(arguments, flags...)...)
		cmd.Env = append(os.Environ(), "TMPDIR="+e.scratch)
		cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // vm.sh then ends the guest
		cmd.WaitDelay = bootTime
		return cmd, nil
	}, e.limit, 2*bootTime)
	out, profile, _ := bytes.Cut(out, []byte(profileFollows+"\n"))
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == exitNotStarted {
		err = howEnded(out, err)
	}
	if err == nil && e.profile != "" {
		err = os.WriteFile(e.profile, profile, 0o644)
	}
	return out, err
}

// howEnded distinguishes a guest that died from one that did not start.
func howEnded(out []byte, err error) error {
	for _, how := range died {
		if strings.Contains(string(out), "vm.sh: error: kernel uml "+how) {
			return fmt.Errorf("%w: %s", errCaught, how)
		}
	}
	return err
}

func isDirectory(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}
