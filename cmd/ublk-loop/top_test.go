package main

import (
	"fmt"
	"path/filepath"
	"testing"
)

func TestTopErrors(t *testing.T) {
	b := newBench()
	b.check(t, []string{"top", "--interval=1ms"}, 2, "", "ublk-loop: error: --interval 1ms: less than 100ms\nhint: see ublk-loop top --help\n")
	b.check(t, []string{"top", "-n0"}, 2, "", "ublk-loop: error: --count \"0\": not a number from 1 to 1073741824\nhint: see ublk-loop top --help\n")
	socket := filepath.Join(t.TempDir(), "s")
	b.check(t, []string{"top", "--socket", socket}, 1, "", fmt.Sprintf("ublk-loop: error: get the statistics of the devices: connect to %s: no server\nhint: start ublk-loop serve, or the unit ublk-loop.socket\n", socket))
}
