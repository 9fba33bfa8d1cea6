package daemon

import (
	"fmt"
	"runtime"

	"github.com/ublk-loop/ublk-loop/internal/confine"
	"github.com/ublk-loop/ublk-loop/loop"
)

var _ loop.Events = (*many)(nil)

// Serving implements loop.Events.
func (s *many) Serving(status loop.Status, recovered bool) {
	n := s.queues.Add(int32(status.Queues))
	if s.serves.Load() {
		confine.ReserveProcessors(runtime.NumCPU() + int(n))
	}
	message := "serving"
	if recovered {
		message = "recovered"
	}
	s.log.of(status.ID).info(message, loggedDevice(&status)...)
}

// Ended implements loop.Events.
func (s *many) Ended(status loop.Status, err error) {
	s.queues.Add(-int32(status.Queues))
	if err != nil {
		s.log.of(status.ID).error("ended", err)
		return
	}
	s.log.of(status.ID).info("ended")
}

// Slow implements loop.Events. The other devices are served on, and commands
// about them are not held up.
func (s *many) Slow(device, what string) {
	s.log.warn(fmt.Sprintf("%s %s: takes long; the disk below may hang, or the kernel has lost a command: "+
		"dmesg, and echo w > /proc/sysrq-trigger, show what is blocked", what, device))
}

// Warned implements loop.Events.
func (s *many) Warned(status loop.Status, what string) { s.log.of(status.ID).warn(what) }

// Failed implements loop.Events.
func (s *many) Failed(err error) {
	select {
	case s.failed <- err:
	default: // one error is enough to end the server
	}
}
