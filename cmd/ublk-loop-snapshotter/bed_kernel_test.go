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

// bed is a test with a server of devices and a directory for images.
type bed struct {
	testing.TB
	dir    string // the test's directory, on tmpfs
	images string // the allowed directory
	client *client.Client
	server *process

	processes []*process
}

// newBed starts a server. The test needs ublktest.Own, because newBed writes
// oci.SettingsPath. At its end the test must have left no device and no mount.
func newBed(t testing.TB, needs ...ublktest.Need) *bed {
	t.Helper()
	ublktest.Kernel(t, needs...)
	b := &bed{TB: t, dir: t.TempDir(), client: client.New(client.DefaultSocket)}
	b.images = filepath.Join(b.dir, "images")
	b.mkdir(b.images, filepath.Dir(oci.SettingsPath), filepath.Dir(client.DefaultSocket))
	b.write(oci.SettingsPath, fmt.Sprintf("allowed_images = [%[1]q]\nwritable_images = [%[1]q]\nattach_timeout = \"60s\"\n", b.images))
	before := mounts(t)
	t.Cleanup(b.killAll) // runs after the cleanups below
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

// settings reads the settings of the snapshotter.
func (b *bed) settings() *oci.Settings {
	b.Helper()
	s, err := oci.ReadSettings(oci.SettingsPath)
	if err != nil {
		b.Fatal(err)
	}
	return s
}

// devices returns the devices of the server.
func (b *bed) devices() []client.Device {
	b.Helper()
	list, err := b.client.Devices(context.Background())
	if err != nil {
		b.Fatal(err)
	}
	return list
}

// devicesAre waits until the server has n devices.
func (b *bed) devicesAre(n int) {
	b.Helper()
	var list []client.Device
	b.until(fmt.Sprintf("there are %d devices", n), func() bool {
		list = b.devices()
		return len(list) == n
	}, func() string { return fmt.Sprintf("%+v", list) })
}

// patience bounds an operation that takes seconds at most, on an emulated and shared
// machine.
const patience = time.Minute

// until waits for a condition that causes no event.
func (b *bed) until(what string, ok func() bool, more ...func() string) {
	b.Helper()
	ublktest.Until(b, patience, what, ok, more...)
}

// process is a program that runs beside the test.
type process struct {
	b      *bed
	cmd    *exec.Cmd
	errOut bytes.Buffer
	done   chan struct{} // closed when the process has ended
}

// start starts a program, and kills it at the end of the test.
func (b *bed) start(program string, args ...string) *process {
	b.Helper()
	p := &process{b: b, cmd: exec.Command(program, args...), done: make(chan struct{})}
	p.cmd.Stderr = &p.errOut
	p.cmd.WaitDelay = time.Second // its children may keep its output open
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

// killAll ends all processes that still run. If the test has failed, it prints their
// output.
func (b *bed) killAll() {
	for _, p := range b.processes {
		if p.end(unix.SIGKILL); b.Failed() {
			ublktest.Detail(b, "%s says:\n%s", p.cmd.Path, p.errOut.String())
		}
	}
}

// end sends a signal to the process, and waits for its end.
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

// tool runs a program, which must succeed, and returns its output.
func (b *bed) tool(name string, args ...string) string {
	b.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		b.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// mounts returns all mount points of this namespace.
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
