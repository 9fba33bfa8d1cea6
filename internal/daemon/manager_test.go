package daemon

import (
	"net"
	"path/filepath"
	"testing"
)

func TestNotify(t *testing.T) {
	if manager, err := openNotify(""); manager != nil || err != nil {
		t.Errorf("without a manager: %v, %v", manager, err)
	}
	if err := notify(nil, "READY=1"); err != nil {
		t.Errorf("without a manager: %v", err)
	}
	for _, name := range []string{filepath.Join(t.TempDir(), "socket"), "@ublk-loop-test-" + filepath.Base(t.TempDir())} {
		conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		manager, err := openNotify(name)
		if err != nil {
			t.Fatal(err)
		}
		defer manager.Close()
		if err := notify(manager, "READY=1"); err != nil {
			t.Error(err)
		}
		buf := make([]byte, 64)
		n, err := conn.Read(buf)
		if err != nil || string(buf[:n]) != "READY=1" {
			t.Errorf("%s: received %q, %v", name, buf[:n], err)
		}
	}
	if _, err := openNotify("/nonexistent/socket"); err == nil {
		t.Error("connected to no socket")
	}
}
