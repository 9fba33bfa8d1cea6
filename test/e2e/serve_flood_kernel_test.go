package e2e

import (
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// Ten thousand clients, most of which are silent or never end, do not affect the I/O. The
// server answers when they have gone.
func TestKernelServeFlooded(t *testing.T) {
	b := kernelBed(t, ublktest.Plain)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 20000, Max: 20000}); err != nil {
		t.Skipf("cannot have 20000 files open: %v", err)
	}
	m := b.serve()
	s := b.add(b.image(1 << 20))
	p := b.pulse(s)
	const clients, kinds = 10000, 4
	conns := make([]net.Conn, 0, clients)
	var mu sync.Mutex
	var group sync.WaitGroup
	for kind := range kinds {
		group.Go(func() {
			for range clients / kinds {
				c, err := net.DialTimeout("unix", client.DefaultSocket, 10*time.Second)
				if err != nil {
					continue // refused
				}
				// The writes may fail, because a server that closes at once may be
				// faster.
				_, _ = io.WriteString(c, []string{
					"",
					"POST /v1/devices HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n",
					"GET /v1/devices HTTP/1.1\r\n",
					"GET /v1/devices HTTP/1.1\r\nHost: x\r\n\r\n",
				}[kind])
				mu.Lock()
				conns = append(conns, c)
				mu.Unlock()
			}
		})
	}
	group.Wait()
	before := p.blocks.Load()
	waitUntil(t, "I/O goes on beside the clients", func() bool { return p.blocks.Load() > before })
	for _, c := range conns {
		_ = c.Close()
	}
	b.end(p)
	t.Logf("%d of %d clients got a connection; the longest write and read: %v", len(conns), clients, time.Duration(p.longest.Load()))
	waitUntil(t, "the server answers again", func() bool {
		_, err := m.try("-f", "http://x/v1/devices")
		return err == nil
	})
	m.serves(s)
	b.del(s.Device)
}
