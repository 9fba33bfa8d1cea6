package controltest

import (
	"errors"
	"net"
	"net/http"
	"sync"
	"testing"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/internal/control"
	"github.com/ublk-loop/ublk-loop/loop"
)

// Serve starts a server of devices at a socket. It ends with the test, or when the returned
// function is called, and with it all leases.
func Serve(t testing.TB, d *Devices, socket string) (stop func()) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	h := (&control.Server{
		Devices:  d,
		Status:   func() (none client.ServerStatus) { return none },
		Describe: func(err error, _ string, _ *loop.Config) error { return err },
		Hint:     func(error) string { return "" },
	}).HTTP()
	done := make(chan error)
	go func() { done <- control.Serve(h, l) }() // stop waits for it
	stop = sync.OnceFunc(func() {
		if err := errors.Join(h.Close(), <-done); err != nil && !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}
