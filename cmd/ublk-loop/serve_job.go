package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
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
	j.leases = map[uint32]*os.File{}
	for id, fd := range j.Leases {
		j.leases[id] = received(fd, "lease")
	}
	return j, nil
}

// closeLeases closes the descriptors of leases that nobody has taken over.
func (j *serveJob) closeLeases() {
	for _, f := range j.leases {
		_ = f.Close()
	}
}
