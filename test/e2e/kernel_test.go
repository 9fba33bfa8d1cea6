package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// The tests in this package execute the command (UBLK_LOOP_BIN) as a user does, on a real
// kernel.

// bed is the environment of a test that runs the command.
type bed struct {
	testing.TB
	bin string
	ctl *ublk.Control
}

// kernelBed returns a bed for a test with these needs. At the end of the test it fails
// the test if a device, a server or a leak that ublktest.Kernel checks for is left.
func kernelBed(t testing.TB, needs ...ublktest.Need) *bed {
	t.Helper()
	b := &bed{TB: t, bin: os.Getenv("UBLK_LOOP_BIN")}
	b.ctl = ublktest.Kernel(t, needs...)
	if b.bin == "" {
		t.Skip("UBLK_LOOP_BIN does not name a binary to test")
	}
	before := things(t)
	t.Cleanup(func() {
		if t.Failed() { // it may not have come to its removals; a time-out stays its only failure
			ublktest.Detail(t, "left behind: %q", b.left(before))
		} else {
			b.nothingSince(before)
		}
		// A failed test must not make the next one fail.
		_, _ = exec.Command(b.bin, "del", "--all", "--force").CombinedOutput()
	})
	return b
}

// in returns the bed of a subtest.
func (b *bed) in(t testing.TB) *bed { return &bed{t, b.bin, b.ctl} }

// things returns the files that a successful add makes. A failed add must not leave any.
func things(t testing.TB) []string {
	t.Helper()
	var found []string
	for _, pattern := range []string{"/sys/class/ublk-char/*", "/sys/block/ublkb*", "/dev/ublk[bc]*", "/run/ublk-loop/*", "/run/ublk-loop/.*", "/run/ublk-loop/locks/*"} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, paths...)
	}
	for _, pid := range append(servers(t), processesOf(t, apartRole)...) {
		found = append(found, fmt.Sprintf("server %d", pid))
	}
	slices.Sort(found)
	return found
}

// These are the roles of processes that serve devices.
const (
	serverRole = "server-of-add"
	manyRole   = "server-of-serve"
	// The processes that serve the requests of these servers.
	apartRole     = "requests-of-add"
	apartManyRole = "requests-of-serve"
)

// servers returns the servers of devices.
func servers(t testing.TB) []int {
	t.Helper()
	return processesOf(t, serverRole, manyRole)
}

// processesOf returns the processes with these roles.
func processesOf(t testing.TB, roles ...string) []int {
	t.Helper()
	paths, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, path := range paths {
		cmdline, err := os.ReadFile(path)
		words := strings.Split(string(cmdline), "\x00")
		if err != nil || len(words) < 2 || words[0] != "ublk-loop" || !slices.Contains(roles, words[1]) {
			continue // the process has ended, or is another program
		}
		pid, err := strconv.Atoi(strings.Split(path, "/")[2])
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, pid)
	}
	return pids
}

// nothingSince fails the test if new things exist. It does not wait, because the command
// must have finished its work.
func (b *bed) nothingSince(before []string) {
	b.Helper()
	for _, thing := range b.left(before) {
		b.Errorf("left behind: %s", thing)
	}
}

// left returns the things that did not exist before.
func (b *bed) left(before []string) []string {
	b.Helper()
	return slices.DeleteFunc(things(b), func(thing string) bool { return slices.Contains(before, thing) })
}

// result is the result of a command.
type result struct {
	args   []string
	status int
	out    string
	err    string
	took   time.Duration
}

// command returns a command for the caller to run.
func (b *bed) command(args ...string) *exec.Cmd { return exec.Command(b.bin, args...) }

func (b *bed) run(args ...string) result {
	b.Helper()
	return b.runCommand(b.command(args...))
}

func (b *bed) runCommand(cmd *exec.Cmd) result {
	b.Helper()
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	start := time.Now()
	stop := b.watch()
	err := cmd.Run()
	stop()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		b.Fatal(err)
	}
	return result{cmd.Args[1:], cmd.ProcessState.ExitCode(), out.String(), errOut.String(), time.Since(start)}
}

// ok runs the command, which must succeed without a warning, and returns its output.
func (b *bed) ok(args ...string) string {
	b.Helper()
	r := b.run(args...)
	r.succeeds(b)
	return r.out
}

func (r result) succeeds(t testing.TB) {
	t.Helper()
	if r.status != 0 || r.err != "" {
		t.Fatalf("ublk-loop %q: exit status %d\n%s%s", r.args, r.status, r.out, r.err)
	}
}

// fails checks the form of an error. texts must be in its first line, or after the prefix
// "hint: " in its hint.
func (r result) fails(t testing.TB, status int, texts ...string) {
	t.Helper()
	if r.status != status || r.out != "" {
		t.Errorf("ublk-loop %q: exit status %d, want %d, output %q, errors %q", r.args, r.status, status, r.out, r.err)
	}
	if !strings.HasPrefix(r.err, "ublk-loop: error: ") || strings.Count(r.err, "\n") > 2 {
		t.Errorf("ublk-loop %q: errors are\n%s", r.args, r.err)
	}
	line, hint, _ := strings.Cut(r.err, "\n")
	for _, text := range texts {
		where := line
		if wanted, isHint := strings.CutPrefix(text, "hint: "); isHint {
			where, text = hint, wanted
		}
		if !strings.Contains(where, text) {
			t.Errorf("ublk-loop %q: %q lacks %q", r.args, where, text)
		}
	}
}

// add attaches a file and returns the device.
func (b *bed) add(args ...string) client.Device {
	b.Helper()
	var s client.Device
	b.decode(b.ok(append([]string{"add", "--json"}, args...)...), &s)
	return s
}

// del removes a device.
func (b *bed) del(args ...string) {
	b.Helper()
	if out := b.ok(append([]string{"del"}, args...)...); out != "" {
		b.Errorf("del %q prints %q", args, out)
	}
}

func (b *bed) list(args ...string) []client.Device {
	b.Helper()
	var list []client.Device
	b.decode(b.ok(append([]string{"list", "--json"}, args...)...), &list)
	return list
}

func (b *bed) decode(text string, v any) {
	b.Helper()
	if err := json.Unmarshal([]byte(text), v); err != nil {
		b.Fatalf("%v: %s", err, text)
	}
}

// image makes a file of size bytes. All but its first MiB is a hole.
func (b *bed) image(size int64) string {
	b.Helper()
	path := filepath.Join(b.TempDir(), "disk.img")
	data := make([]byte, min(size, 1<<20))
	for i := range data {
		data[i] = byte(i >> 9)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		b.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		b.Fatal(err)
	}
	return path
}

// attr returns an attribute of a device's disk in sysfs.
func (b *bed) attr(s client.Device, name string) string {
	b.Helper()
	data, err := os.ReadFile(filepath.Join("/sys/block", filepath.Base(s.Device), name))
	if err != nil {
		b.Fatal(err)
	}
	return strings.TrimSpace(string(data))
}

// tool runs another program, which must succeed, and returns its output.
func (b *bed) tool(name string, args ...string) string {
	b.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		b.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// waitLimit exceeds the time of every operation that a test waits for, even on an
// emulated machine that shares its CPU with three others.
const waitLimit = 40 * time.Second

// waitUntil waits for a condition that causes no event.
func waitUntil(t testing.TB, what string, ok func() bool) {
	t.Helper()
	ublktest.Until(t, waitLimit, what, ok, func() string { return "the servers' threads:\n" + whereThreadsAre(t) })
}
