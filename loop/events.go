package loop

import "time"

// Events are told what becomes of a Server's devices. They are called by
// several goroutines, and must not call the Server.
type Events interface {
	// Serving: the device can be used; recovered says that it was before.
	Serving(s Status, recovered bool)
	// Ended: the device is served no more. err says what went wrong, nil for an
	// orderly end.
	Ended(s Status, err error)
	// Slow: what is done to a device has taken ten seconds, and goes on.
	Slow(device, what string)
	// Failed: a thread of several devices has. They hang until this process
	// ends, which it should at once.
	Failed(err error)
}

type noEvents struct{}

func (noEvents) Serving(Status, bool) {}
func (noEvents) Ended(Status, error)  {}
func (noEvents) Slow(_, _ string)     {}
func (noEvents) Failed(error)         {}

// slowAfter is how long something may take before somebody is told.
const slowAfter = 10 * time.Second

// guard tells of what has not ended, by a call of what it returns, in time.
func (s *Server) guard(device, what string) (done func()) {
	timer := time.AfterFunc(slowAfter, func() { s.opts.Events.Slow(device, what) })
	return func() { timer.Stop() }
}
