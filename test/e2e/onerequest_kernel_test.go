package e2e

import (
	"io"
	"net"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// countRequests passes connections at a socket on to the server, and counts them. Each request has a
// connection of its own.
func countRequests(t *testing.T, socket string) *atomic.Int32 {
	t.Helper()
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	t.Cleanup(func() {
		_ = listener.Close()
		<-ended
	})
	requests := &atomic.Int32{}
	go func() {
		defer close(ended)
		for {
			from, err := listener.Accept()
			if err != nil {
				return
			}
			to, err := net.Dial("unix", client.DefaultSocket)
			if err != nil {
				t.Error(err)
				_ = from.Close()
				continue
			}
			requests.Add(1)
			for _, ends := range [][2]net.Conn{{from, to}, {to, from}} {
				go func() { // ends with the connection
					_, _ = io.Copy(ends[0], ends[1])
					_ = ends[0].Close()
				}()
			}
		}
	}()
	return requests
}

// The sequence number of the opened disk says that it is the leased device, so that a client asks
// the server only once.
func TestKernelAttachIsOneRequest(t *testing.T) {
	b := kernelBed(t, ublktest.Once)
	b.serve()
	socket := filepath.Join(t.TempDir(), "socket")
	requests := countRequests(t, socket)
	held, err := client.New(socket).Attach(t.Context(), client.AddRequest{File: b.image(1 << 20)}, client.Files{})
	if err != nil {
		t.Fatal(err)
	}
	if n := requests.Load(); n != 1 {
		t.Errorf("%d requests", n)
	}
	device := held.Device
	held.Close()
	b.isGone(device)
}
