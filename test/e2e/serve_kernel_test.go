package e2e

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
)

// many is a server of many devices.
type many struct {
	b      *bed
	cmd    *exec.Cmd
	errOut output
	ended  chan error
}

// output is what a running process has printed so far.
type output struct {
	mu   sync.Mutex
	text strings.Builder
}

func (o *output) Write(text []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(text)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// serve starts a server of many devices, and waits until it answers. The end of the test
// stops the server, which must end in order.
func (b *bed) serve(args ...string) *many {
	b.Helper()
	return b.serveIn(nil, args...)
}

// serveIn starts a server with additional environment variables.
func (b *bed) serveIn(env []string, args ...string) *many {
	b.Helper()
	m := &many{b: b, cmd: withEnv(b.command(append([]string{"serve"}, args...)...), env...), ended: make(chan error, 1)}
	m.cmd.Stderr = &m.errOut
	m.start()
	return m
}

// serveTo starts a server with a file as its standard error.
func (b *bed) serveTo(errOut *os.File, args ...string) *many {
	b.Helper()
	m := &many{b: b, cmd: b.command(append([]string{"serve"}, args...)...), ended: make(chan error, 1)}
	m.cmd.Stderr = errOut
	m.start()
	return m
}

// start starts the command of a server.
func (m *many) start() {
	b := m.b
	b.Helper()
	if err := m.cmd.Start(); err != nil {
		b.Fatal(err)
	}
	go func() { m.ended <- m.cmd.Wait() }()
	b.Cleanup(func() {
		if m.cmd != nil {
			m.stop()
		}
	})
	waitUntil(b, "the server answers", func() bool {
		_, err := m.try("-f", "http://x/v1/devices")
		return err == nil
	})
}

// stop stops the server, which must end in order.
func (m *many) stop() {
	m.b.Helper()
	if err := m.cmd.Process.Signal(unix.SIGTERM); err != nil {
		m.b.Error(err)
	}
	if err := <-m.ended; err != nil {
		m.b.Errorf("the server: %v\n%s", err, m.errOut.String())
	}
	m.cmd = nil
}

// kill kills the server, as a crash would.
func (m *many) kill() {
	m.b.Helper()
	if err := m.cmd.Process.Kill(); err != nil {
		m.b.Error(err)
	}
	if err := <-m.ended; err == nil {
		m.b.Error("a server that was killed has ended in order")
	}
	m.cmd = nil
}

// pid returns the server's pid.
func (m *many) pid() int { return m.cmd.Process.Pid }

// try calls curl with the server's socket.
func (m *many) try(args ...string) (string, error) {
	out, err := exec.Command("curl", append([]string{"-s", "-S", "--unix-socket", client.DefaultSocket}, args...)...).CombinedOutput()
	return string(out), err
}

func (m *many) curl(args ...string) string {
	m.b.Helper()
	out, err := m.try(args...)
	if err != nil {
		m.b.Fatalf("curl %q: %v\n%s", args, err, out)
	}
	return out
}

// works checks that a device stores data.
func (b *bed) works(s client.Device) {
	b.Helper()
	data := randomBytes(int(s.Size))
	b.store(s.Device, data)
	b.holds(s.Device, data)
}

func TestKernelServe(t *testing.T) {
	b := kernelBed(t)
	m := b.serve()
	first, second := b.add(b.image(8<<20)), b.add(b.image(8<<20))
	for _, s := range []client.Device{first, second} {
		if s.PID != m.pid() || s.Autoclear {
			t.Errorf("%s: process %d, autoclear %v; want %d, false", s.Device, s.PID, s.Autoclear, m.pid())
		}
		b.works(s)
	}
	alone := b.add("--standalone", b.image(8<<20))
	if alone.PID == m.pid() {
		t.Error("a device that was to have its own server is served by the other")
	}
	if n := len(b.list()); n != 3 {
		t.Errorf("list shows %d devices, want 3", n)
	}
	b.del(first.Device, alone.Device)
	if list := b.list(); len(list) != 1 || list[0].ID != second.ID {
		t.Errorf("list shows %+v, want %s", list, second.Device)
	}
	b.works(second)
	m.stop()
	if list := b.list(); len(list) != 0 {
		t.Errorf("after the server's end list shows %+v", list)
	}
	if _, err := os.Stat(client.DefaultSocket); !os.IsNotExist(err) {
		t.Errorf("after the server's end its socket: error %v", err)
	}
}

// A server outlives the mount namespace in which it was started, and the mount of its own
// device there, because it keeps neither.
func TestKernelServeUnshared(t *testing.T) {
	b := kernelBed(t)
	image, dir := b.image(16<<20), t.TempDir()
	b.tool("mkfs.ext4", "-q", "-F", image)
	script := `"$0" serve >/dev/null 2>&1 & server=$!
		trap 'kill $server' EXIT
		until curl -sf --unix-socket ` + client.DefaultSocket + ` http://x/v1/server >/dev/null; do sleep 0.05; done
		device=$("$0" add "$1") && mount "$device" "$2" && echo $server && trap - EXIT`
	out := strings.TrimSpace(b.tool("unshare", "--mount", "sh", "-c", script, b.bin, image, dir))
	pid, err := strconv.Atoi(out)
	if err != nil {
		t.Fatalf("%q: %v", out, err)
	}
	defer func() { _ = unix.Kill(pid, unix.SIGTERM) }()
	b.del(b.list()[0].Device) // its mount has ended with the namespace
	// The mounts through which the server found files have ended with the namespace. A
	// client that opens its file itself is still served.
	b.works(b.add(image))
	if err := unix.Kill(pid, unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, "the server has ended", func() bool { return len(things(t)) == 0 })
}
