package main

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// Only root can use the socket and its directory. listen replaces the socket of a killed process. It does
// not replace a socket that another process listens at, nor a file that is not a socket.
func TestListen(t *testing.T) {
	run := filepath.Join(t.TempDir(), "run")
	dir := filepath.Join(run, "made")
	path := filepath.Join(dir, "s.sock")
	l, err := listen(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]os.FileMode{path: 0o600 | os.ModeSocket, dir: 0o700 | os.ModeDir, run: 0o755 | os.ModeDir} {
		if info, err := os.Stat(name); err != nil || info.Mode() != want {
			t.Errorf("%s has mode %v, error %v, want %v", name, info.Mode(), err, want)
		}
	}
	if _, err := listen(path); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("a second one: %v", err)
	}
	unixListener, ok := l.(*net.UnixListener)
	if !ok {
		t.Fatalf("%T", l)
	}
	unixListener.SetUnlinkOnClose(false) // as after a kill
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := listen(path)
	if err != nil {
		t.Fatalf("after a crash: %v", err)
	}
	defer again.Close()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := listen(file); err == nil {
		t.Error("listens at a file")
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != "kept" {
		t.Errorf("the file has %q, error %v", text, err)
	}
}

func TestNotifyReady(t *testing.T) {
	if err := notifyReady(""); err != nil {
		t.Error(err)
	}
	path := filepath.Join(t.TempDir(), "notify")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	if err := notifyReady(path); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 100)
	if n, err := manager.Read(buf); err != nil || string(buf[:n]) != "READY=1" {
		t.Errorf("the manager reads %q, error %v", buf[:n], err)
	}
}

func TestCommandLine(t *testing.T) {
	for _, args := range [][]string{{"argument"}, {"--size", "many"}, {"--max-size", "many"}, {"--size=1G", "--max-size=1M", "--root=/x"}, {"--size=1G", "--root", "relative"}, {"--none"}} {
		cmd := newCommand()
		cmd.SetArgs(args)
		cmd.SetOut(io.Discard)
		cmd.SetErr(io.Discard)
		ctx, cancel := context.WithCancel(context.Background())
		cancel() // serve ends at once if it accepts the arguments
		if err := cmd.ExecuteContext(ctx); err == nil {
			t.Errorf("%q is accepted", args)
		}
	}
	for _, tt := range []struct {
		options
		size, maxSize int64
	}{
		{options{size: "10G"}, 10 << 30, 10 << 30},
		{options{size: "10G", maxSize: "20G"}, 10 << 30, 20 << 30},
	} {
		if size, maxSize, err := tt.sizes(); err != nil || size != tt.size || maxSize != tt.maxSize {
			t.Errorf("%+v: %d and %d, error %v", tt.options, size, maxSize, err)
		}
	}
}
