package e2e

import (
	"testing"

	"golang.org/x/sys/unix"
)

// A killed server gets a successor, which continues to serve. A signal to the supervisor
// ends both.
func TestKernelSupervise(t *testing.T) {
	b := kernelBed(t)
	m := b.serve("--supervise")
	s := b.add(b.image(1 << 20))
	if s.PID == m.pid() || s.OnCrash != "reissue" {
		t.Fatalf("served by process %d of supervisor %d, on crash %s", s.PID, m.pid(), s.OnCrash)
	}
	p := b.pulse(s)
	// SIGABRT ends a Go program in the same way as a panic.
	for _, how := range []unix.Signal{unix.SIGKILL, unix.SIGABRT, unix.SIGKILL, unix.SIGABRT, unix.SIGKILL} {
		was := b.list()[0].PID
		if err := unix.Kill(was, how); err != nil {
			t.Fatal(err)
		}
		waitUntil(t, "another serves", func() bool {
			now := b.list()
			return len(now) == 1 && now[0].State == "live" && now[0].PID != was && now[0].PID != 0
		})
		blocks := p.blocks.Load()
		waitUntil(t, "I/O goes on", func() bool { return p.blocks.Load() > blocks+2 })
	}
	b.end(p)
	m.stop()
	if list := b.list(); len(list) != 0 {
		t.Errorf("after the end of the server: %+v", list)
	}
}
