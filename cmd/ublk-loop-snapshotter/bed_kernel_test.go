package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/internal/oci"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// bed is where a test has a server of devices, and images.
type bed struct {
	testing.TB
	dir    string // of the test, on tmpfs
	images string // the allowed directory
	client *client.Client
	server *process

	processes []*process
}

// newBed starts a server, for a test that needs ublktest.Own: it writes
// oci.SettingsPath. At the end of the test there must be no device and no mount
// that was not there before.
func newBed(t testing.TB, needs ...ublktest.Need) *bed {
	t.Helper()
	ublktest.Kernel(t, needs...)
	b := &bed{TB: t, dir: t.TempDir(), client: client.New(client.DefaultSocket)}
	b.images = filepath.Join(b.dir, "images")
	b.mkdir(b.images, filepath.Dir(oci.SettingsPath), filepath.Dir(client.DefaultSocket))
	b.write(oci.SettingsPath, fmt.Sprintf("allowed_images = [%q]\nattach_timeout = \"60s\"\n", b.images))
	before := mounts(t)
	t.Cleanup(b.killAll) // after all that is below
	b.serve()
	t.Cleanup(func() {
		b.devicesAre(0)
		if now := mounts(t); !slices.Equal(now, before) {
			t.Errorf("mounts are %q, were %q", now, before)
		}
		b.server.end(unix.SIGTERM)
	})
	return b
}

// serve starts the server of devices.
func (b *bed) serve() {
	b.Helper()
	b.server = b.start(os.Getenv("UBLK_LOOP_BIN"), "serve")
	b.until("the server answers", func() bool {
		_, err := b.client.Status(context.Background())
		return err == nil
	})
}

// settings are those of the snapshotter.
func (b *bed) settings() *oci.Settings {
	b.Helper()
	s, err := oci.ReadSettings(oci.SettingsPath)
	if err != nil {
		b.Fatal(err)
	}
	return s
}

// devices returns those of the server.
func (b *bed) devices() []client.Device {
	b.Helper()
	list, err := b.client.Devices(context.Background())
	if err != nil {
		b.Fatal(err)
	}
	return list
}

// devicesAre waits until the server has a number of devices.
func (b *bed) devicesAre(n int) {
	b.Helper()
	var list []client.Device
	b.until(fmt.Sprintf("there are %d devices", n), func() bool {
		list = b.devices()
		return len(list) == n
	}, func() string { return fmt.Sprintf("%+v", list) })
}

// patience is how long something may take that takes seconds at most, on a
// machine that is emulated and shared.
const patience = time.Minute

// until waits for what gives no event.
func (b *bed) until(what string, ok func() bool, more ...func() string) {
	b.Helper()
	ublktest.Until(b, patience, what, ok, more...)
}

// process is a program that runs beside the test.
type process struct {
	b      *bed
	cmd    *exec.Cmd
	errOut bytes.Buffer
	done   chan struct{} // closed when it has ended
}

// start starts a program, which is killed at the test's end at the latest.
func (b *bed) start(program string, args ...string) *process {
	b.Helper()
	p := &process{b: b, cmd: exec.Command(program, args...), done: make(chan struct{})}
	p.cmd.Stderr = &p.errOut
	p.cmd.WaitDelay = time.Second // what it has started may keep its output
	if err := p.cmd.Start(); err != nil {
		b.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.done)
	}()
	b.processes = append(b.processes, p)
	return p
}

// killAll ends what still runs, and shows what all have said where the test has
// failed.
func (b *bed) killAll() {
	for _, p := range b.processes {
		if p.end(unix.SIGKILL); b.Failed() {
			ublktest.Detail(b, "%s says:\n%s", p.cmd.Path, p.errOut.String())
		}
	}
}

// end sends a signal, and waits for the end.
func (p *process) end(sig unix.Signal) {
	_ = p.cmd.Process.Signal(sig)
	<-p.done
}

func (b *bed) mkdir(paths ...string) {
	b.Helper()
	for _, path := range paths {
		if err := os.MkdirAll(path, 0o755); err != nil {
			b.Fatal(err)
		}
	}
}

func (b *bed) write(path, text string) {
	b.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		b.Fatal(err)
	}
}

// tool runs a program to its end, with success.
func (b *bed) tool(name string, args ...string) string {
	b.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		b.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// mounts returns where something is mounted in this namespace.
func mounts(t testing.TB) []string {
	t.Helper()
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for line := range strings.Lines(string(text)) {
		list = append(list, strings.Fields(line)[4])
	}
	slices.Sort(list)
	return list
}
