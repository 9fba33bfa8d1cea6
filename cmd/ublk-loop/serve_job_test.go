package main

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

// A job of a program that knows of no metrics has none.
func TestServeJobWithoutMetrics(t *testing.T) {
	f, err := inMemory(map[string]int{"socket_fd": -1, "root_fd": -1, "lock_fd": -1, "log_fd": -1, "notify_fd": -1})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fd, err := unix.Dup(int(f.Fd())) // the callee closes it
	if err != nil {
		t.Fatal(err)
	}
	j, err := receiveServeJob([]string{fmt.Sprint(fd)})
	if err != nil || j.metrics != nil {
		t.Errorf("metrics at %v, error %v", j.metrics, err)
	}
}
