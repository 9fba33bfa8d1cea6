package apart

import (
	"errors"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/sandbox"
	"github.com/ublk-loop/ublk-loop/ring"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// limitRings is sandbox.LimitRings, except in tests.
var limitRings = sandbox.LimitRings

// enter enters the sandbox. If the kernel does not limit all rings of a process, the server makes them, and needs the descriptors
// for that. If another program already answers system calls of the server (seccomp_unotify(2)), the kernel accepts no second one.
// Then the process makes its rings itself, and they have no limits.
func enter() (ublk.NewRing, []int, error) {
	err := limitRings(sandbox.ServingRings)
	if err == nil {
		return ring.New, nil, sandbox.Enter(sandbox.ServingCalls)
	}
	if !errors.Is(err, errors.ErrUnsupported) {
		return nil, nil, err
	}
	client, fds, err := sandbox.EnterAsking(sandbox.ServingCalls)
	if errors.Is(err, unix.EBUSY) {
		return ring.New, nil, sandbox.Enter(sandbox.ServingCalls)
	}
	if err != nil {
		return nil, nil, err
	}
	return client.New, fds[:], nil
}

// tryRing makes a ring and closes it. It fails if the kernel makes rings only for privileged
// processes (kernel.io_uring_disabled).
func tryRing(newRing ublk.NewRing) error {
	r, err := newRing(ring.Options{Entries: 1})
	if err != nil {
		return err
	}
	return r.Close()
}
