package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/control"
)

// This file carries a value from a program to the one that it executes in its
// place.

// inMemory returns an anonymous file with a value, to be read from its start. A
// pipe might not take it all, and nobody reads before the exec.
func inMemory(v any) (*os.File, error) {
	fd, err := unix.MemfdCreate("job", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make the server's job: %w", err)
	}
	f := os.NewFile(uintptr(fd), "job")
	if err := json.NewEncoder(f).Encode(v); err != nil {
		return nil, fmt.Errorf("make the server's job: %w", err)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, fmt.Errorf("make the server's job: %w", err)
	}
	return f, nil
}

// receiveServeJob reads the job from the descriptor that the first argument
// names.
func receiveServeJob(args []string) (*serveJob, error) {
	if len(args) != 1 {
		return nil, errNotForUsers
	}
	fd, err := strconv.ParseUint(args[0], 10, 16)
	if err != nil {
		return nil, errNotForUsers
	}
	f := received(int(fd), "job")
	defer func() { _ = f.Close() }()
	j := &serveJob{MetricsFD: -1} // a program before an upgrade may not know of it
	if err := json.NewDecoder(f).Decode(j); err != nil {
		return nil, fmt.Errorf("%w: %w", errNotForUsers, err)
	}
	j.socket, j.root, j.lock = received(j.SocketFD, "socket"), received(j.RootFD, "/"), received(j.LockFD, "lock")
	j.log, j.notify, j.metrics = received(j.LogFD, "log"), received(j.NotifyFD, "notify"), received(j.MetricsFD, "metrics")
	j.takeOver()
	return j, nil
}

// handOver puts what the next server gets of each device into the job.
func (j *serveJob) handOver() {
	j.Leases, j.Until, j.Files = map[uint32]int{}, map[uint32]time.Time{}, map[uint32]int{}
	for id, h := range j.holders {
		j.Leases[id], j.Until[id] = inherit(h.Conn), h.Until
	}
	for id, f := range j.files {
		j.Files[id] = inherit(f)
	}
}

// takeOver finds what the last server had of each device.
func (j *serveJob) takeOver() {
	j.holders, j.files = map[uint32]control.Holder{}, map[uint32]*os.File{}
	for id, fd := range j.Leases {
		j.holders[id] = control.Holder{Conn: received(fd, "lease"), Until: j.Until[id]}
	}
	for id, fd := range j.Files {
		j.files[id] = received(fd, "file")
	}
}

// closeDevices closes the descriptors of devices that nobody has taken over, by
// which the holders of leases see it.
func (j *serveJob) closeDevices() {
	for _, h := range j.holders {
		_ = h.Conn.Close()
	}
	for _, f := range j.files {
		_ = f.Close()
	}
}
