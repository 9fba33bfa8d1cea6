package loop

import (
	"fmt"
	"time"

	"github.com/ublk-loop/ublk-loop/loop/internal/statefile"
)

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
	// Warned passes on a line of Device.Warnings.
	Warned(s Status, what string)
	// Failed reports that a thread of several devices has failed. The devices hang until
	// this process ends, which it should do at once.
	Failed(err error)
}

type noEvents struct{}

func (noEvents) Serving(Status, bool)  {}
func (noEvents) Ended(Status, error)   {}
func (noEvents) Slow(_, _ string)      {}
func (noEvents) Warned(Status, string) {}
func (noEvents) Failed(error)          {}

// slowAfter is the duration after which an operation is reported as slow.
const slowAfter = 10 * time.Second

// guard reports an operation as slow unless the returned function is called within
// slowAfter.
func (s *Server) guard(device, what string) (done func()) {
	timer := time.AfterFunc(slowAfter, func() { s.opts.Events.Slow(device, what) })
	return func() { timer.Stop() }
}

// Warnings returns a channel that receives a line about each of the first hundred wrong blocks
// that the target verity has found, and about each store that fails. It is nil for a device
// that has neither.
func (d *Device) Warnings() <-chan string { return d.warnings }

// watch starts what goes on beside the requests of a device.
func (d *Device) watch() {
	if d.stack != nil {
		d.watchStack()
	}
	d.dropCache()
}

// watchStack passes on what the threads of the queues report, until the device ends.
func (d *Device) watchStack() {
	if !d.stack.Checks() && !d.stack.CanGrow() {
		return
	}
	corruptions, failures := d.stack.CorruptionReports(), d.stack.Failures()
	d.warnings = make(chan string, cap(corruptions)+cap(failures))
	go func() { // ends with the device
		recorded := false
		for {
			var text string
			select {
			case c := <-corruptions:
				text = "verity: " + c.String()
				if !recorded {
					text += d.recordCorruption()
					recorded = true
				}
			case f := <-failures:
				text = f.String()
			case <-d.Done():
				return
			}
			select {
			case d.warnings <- text: // which has room if the channel is read
			case <-d.Done():
				return
			}
		}
	}()
}

// recordCorruption makes list show that the device is corrupt. It returns what a warning says if that
// fails, or nothing.
func (d *Device) recordCorruption() string {
	if err := d.writeCorruption(); err != nil {
		return fmt.Sprintf(" (list does not show that: %v)", err)
	}
	return ""
}

// writeCorruption writes to the state that the device is corrupt.
func (d *Device) writeCorruption() error {
	lock, err := statefile.Acquire(d.ID())
	if err != nil {
		return err
	}
	defer lock.Release()
	if _, err := d.now(); err != nil {
		return err
	}
	saved, err := readState(d.ID())
	if err != nil || saved == nil {
		return err
	}
	saved.Status.Verity = VerityCorrupt
	return saved.write()
}
