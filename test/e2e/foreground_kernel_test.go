package e2e

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// inForeground is a server in the foreground.
type inForeground struct {
	bed    *bed
	cmd    *exec.Cmd
	lines  *bufio.Scanner
	errOut bytes.Buffer
}

// foreground starts a server, and returns the line that the server prints when it is
// ready.
func (b *bed) foreground(env []string, args ...string) (*inForeground, string) {
	b.Helper()
	f := &inForeground{bed: b, cmd: b.command(append([]string{"add", "--foreground"}, args...)...)}
	f.cmd.Env = append(os.Environ(), env...)
	f.cmd.Stderr = &f.errOut
	out, err := f.cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := f.cmd.Start(); err != nil {
		b.Fatal(err)
	}
	f.lines = bufio.NewScanner(out)
	if !f.lines.Scan() {
		err := f.cmd.Wait()
		b.Fatalf("it ends without a line: %v\n%s", err, &f.errOut)
	}
	return f, f.lines.Text()
}

// end waits for the end of the server, which must be orderly.
func (f *inForeground) end() {
	f.bed.Helper()
	killer := time.AfterFunc(waitLimit, func() { _ = f.cmd.Process.Kill() })
	for f.lines.Scan() {
		f.bed.Errorf("more output: %s", f.lines.Text())
	}
	err := f.cmd.Wait()
	if !killer.Stop() {
		ublktest.TimedOut(f.bed, waitLimit, "the end of a server in the foreground")
	}
	if err != nil {
		f.bed.Errorf("it ends with %v\n%s", err, &f.errOut)
	}
}

func (f *inForeground) signal(sig os.Signal) {
	f.bed.Helper()
	if err := f.cmd.Process.Signal(sig); err != nil {
		f.bed.Fatal(err)
	}
}

// A server in the foreground is the started process, and ends in order at a signal.
func TestKernelForeground(t *testing.T) {
	b := kernelBed(t)
	file := b.image(8 << 20)
	before := things(t)
	for _, sig := range []os.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGHUP} {
		f, device := b.foreground(nil, file)
		list := b.list()
		if len(list) != 1 || list[0].Device != device || list[0].PID != f.cmd.Process.Pid || list[0].State != "live" {
			t.Errorf("it prints %q, its process is %d, list has %+v", device, f.cmd.Process.Pid, list)
		}
		b.roundTrip(device, file)
		f.signal(sig)
		f.end()
		b.nothingSince(before)
		for _, line := range strings.Split(strings.TrimSpace(f.errOut.String()), "\n") {
			var entry struct{ ID *uint32 }
			b.decode(line, &entry)
			if entry.ID == nil || fmt.Sprintf("/dev/ublkb%d", *entry.ID) != device {
				t.Errorf("log line %s", line)
			}
		}
	}
}

// A server in the foreground ends when its device is removed.
func TestKernelForegroundDel(t *testing.T) {
	b := kernelBed(t)
	file := b.image(1 << 20)
	f, _ := b.foreground(nil, "--json", file)
	// foreground has read the first line of the JSON.
	text := "{"
	for f.lines.Scan() {
		text += f.lines.Text()
		if f.lines.Text() == "}" {
			break
		}
	}
	var s client.Device
	b.decode(text, &s)
	if s.File != file || s.PID != f.cmd.Process.Pid {
		t.Errorf("status is %+v", s)
	}
	b.run("del", s.Device).succeeds(t) // the ended server is a zombie until end
	f.end()
}

// The service manager hears when the device is usable, and when it goes.
func TestKernelForegroundNotify(t *testing.T) {
	b := kernelBed(t)
	file := b.image(1 << 20)
	for _, name := range []string{filepath.Join(t.TempDir(), "notify"), "@ublk-loop-test"} {
		manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		defer manager.Close()
		f, device := b.foreground([]string{"NOTIFY_SOCKET=" + name}, file)
		b.notified(manager, "READY=1\nSTATUS="+device+" is "+file)
		f.signal(unix.SIGTERM)
		b.notified(manager, "STOPPING=1")
		f.end()
	}
	r := b.runCommand(withEnv(b.command("add", "--foreground", file), "NOTIFY_SOCKET=/nonexistent"))
	r.fails(t, 1, "NOTIFY_SOCKET", "/nonexistent")
}

func withEnv(cmd *exec.Cmd, env ...string) *exec.Cmd {
	cmd.Env = append(os.Environ(), env...)
	return cmd
}

func (b *bed) notified(manager *net.UnixConn, want string) {
	b.Helper()
	buf := make([]byte, 4096)
	if err := manager.SetReadDeadline(time.Now().Add(waitLimit)); err != nil {
		b.Fatal(err)
	}
	n, err := manager.Read(buf)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		ublktest.TimedOut(b, waitLimit, "the notification %q", want)
	}
	if err != nil || string(buf[:n]) != want {
		b.Errorf("notified of %q, want %q: %v", buf[:n], want, err)
	}
}

// Partitions exist before the path is printed.
func TestKernelForegroundPartScan(t *testing.T) {
	b := kernelBed(t)
	f, device := b.foreground(nil, "-P", b.partitioned())
	for _, p := range []string{"p1", "p2"} {
		if _, err := os.Stat(device + p); err != nil {
			t.Error(err)
		}
	}
	f.signal(unix.SIGTERM)
	f.end()
}

// A server survives the end of the reader of its log.
func TestKernelForegroundBrokenLog(t *testing.T) {
	b := kernelBed(t)
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := b.command("add", "--foreground", b.image(1<<20))
	cmd.Stderr = writer
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	writer.Close()
	f := &inForeground{bed: b, cmd: cmd, lines: bufio.NewScanner(out)}
	f.lines.Scan()
	reader.Close()
	f.signal(unix.SIGTERM)
	f.end()
}

// An error in the foreground is the same as in the background.
func TestKernelForegroundError(t *testing.T) {
	b := kernelBed(t)
	before := things(t)
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	b.run("add", "--foreground", empty).fails(t, 1, empty, "empty")
	b.run("add", "--foreground", empty+"-no").fails(t, 1, empty+"-no", "no such file")
	b.nothingSince(before)
}
