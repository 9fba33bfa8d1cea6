package loop

import "time"

// Events receives the events of a Server's devices. Several goroutines call it. It must
// not call the Server.
type Events interface {
	// Serving reports that the device can be used. recovered says that it existed before.
	Serving(s Status, recovered bool)
	// Ended reports that the device is no longer served. err is nil after an orderly end.
	Ended(s Status, err error)
	// Slow reports that an operation on a device has taken ten seconds, and is still
	// running.
	Slow(device, what string)
	// Failed reports that a thread of several devices has failed. The devices hang until
	// this process ends, which it should do at once.
	Failed(err error)
}

type noEvents struct{}

func (noEvents) Serving(Status, bool) {}
func (noEvents) Ended(Status, error)  {}
func (noEvents) Slow(_, _ string)     {}
func (noEvents) Failed(error)         {}

// slowAfter is the duration after which an operation is reported as slow.
const slowAfter = 10 * time.Second

// guard reports an operation as slow unless the returned function is called within
// slowAfter.
func (s *Server) guard(device, what string) (done func()) {
	timer := time.AfterFunc(slowAfter, func() { s.opts.Events.Slow(device, what) })
	return func() { timer.Stop() }
}
