package main

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ublk-loop/ublk-loop/internal/daemon"
	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// Without a path, the kernel would give the socket a name in a namespace that ignores modes.
func TestServeWithoutPath(t *testing.T) {
	b := newBench()
	b.app.serve = func(daemon.ServeOptions) error {
		t.Error("it serves")
		return nil
	}
	b.check(t, []string{"serve", "--socket", ""}, 2, "", "ublk-loop: error: --socket \"\": it is empty\nhint: see ublk-loop serve --help\n")
}

// Without the driver, serve fails. With a service manager, which would start it again at once, it first waits for the
// driver.
func TestServeWithoutDriver(t *testing.T) {
	for _, tt := range []struct {
		notify string
		comes  time.Duration // of the driver
		waits  time.Duration // most of serve's time
		serves bool
	}{
		{"", time.Second, 0, false},
		{"/x", time.Second, time.Second + driverPause, true},
		{"/x", time.Hour, driverPatience, false},
	} {
		t.Setenv("NOTIFY_SOCKET", tt.notify)
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			b := newBench()
			b.app.load = func() error { return hint.Add(fmt.Errorf("%w: no module", ublk.ErrNoDriver), "install it") }
			b.app.open = func() (driver, error) {
				if time.Since(start) < tt.comes {
					return nil, ublk.ErrNoDriver
				}
				return b.drv, nil
			}
			served := false
			b.app.serve = func(daemon.ServeOptions) error {
				served = true
				return nil
			}
			if tt.serves {
				b.check(t, []string{"serve"}, 0, "", "")
			} else {
				b.check(t, []string{"serve"}, 1, "", "ublk-loop: error: serve: the ublk driver is not loaded: no module\nhint: install it\n")
			}
			if took := time.Since(start); served != tt.serves || took > tt.waits {
				t.Errorf("NOTIFY_SOCKET=%s: serves %v after %s; the driver comes after %s", tt.notify, served, took, tt.comes)
			}
		})
	}
}
