package main

import (
	"testing"

	"github.com/ublk-loop/ublk-loop/internal/daemon"
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
