package e2e

import (
	"net"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// A server goes on after an upgrade, also if its supervisor or its service manager is gone.
func TestKernelUpgradeAlone(t *testing.T) {
	b := kernelBed(t)
	for name, serve := range map[string]func(*testing.T) *many{
		"supervisor": func(t *testing.T) *many {
			m := b.serve("--supervise")
			if err := unix.Kill(m.pid(), unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
			waitUntil(t, "the end of the supervisor", func() bool { return unix.Kill(m.pid(), 0) != nil })
			return m
		},
		"manager": func(t *testing.T) *many {
			path := filepath.Join(t.TempDir(), "notify")
			manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
			if err != nil {
				t.Fatal(err)
			}
			m := b.serveIn([]string{"NOTIFY_SOCKET=" + path})
			b.notified(manager, "READY=1")
			if err := manager.Close(); err != nil {
				t.Fatal(err)
			}
			return m
		},
	} {
		m := serve(t)
		s := b.add(b.image(1 << 20))
		p := b.pulse(s)
		b.ok("upgrade")
		if now := b.list()[0]; now.State != "live" || now.PID == 0 {
			t.Fatalf("%s: the device is %s, process %d", name, now.State, now.PID)
		}
		blocks := p.blocks.Load()
		waitUntil(t, "I/O goes on", func() bool { return p.blocks.Load() > blocks+2 })
		b.end(p)
		if err := unix.Kill(b.list()[0].PID, unix.SIGTERM); err != nil {
			t.Fatal(err)
		}
		// This also waits for the server of the supervisor, which has the same standard error.
		if err := <-m.ended; (err == nil) != (name == "manager") {
			t.Errorf("%s: %v", name, err)
		}
		m.cmd = nil
		if list := b.list(); len(list) > 0 {
			t.Errorf("%s leaves %+v", name, list)
		}
	}
}
