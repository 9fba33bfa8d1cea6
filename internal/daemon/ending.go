package daemon

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/rawname"
	"github.com/ublk-loop/ublk-loop/internal/report"
	"github.com/ublk-loop/ublk-loop/loop"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// insistTime is the time after a refused SIGTERM in which a second one is obeyed.
const insistTime = 10 * time.Second

// ending decides when a server of one device ends.
type ending struct {
	dev       endingDevice
	id        uint32 // of the device
	log       *logger
	isClaimed func(id uint32) (bool, error)
	writeBack func(id uint32) error
}

// endingDevice is the part of loop.Device that tells of its end.
type endingDevice interface {
	Done() <-chan struct{}
	Err() error
	Warnings() <-chan string
}

var _ endingDevice = (*loop.Device)(nil)

// wait returns when the device has ended or a signal ends the server.
//
// SIGTERM does not end it while the device is mounted, because the file system would lose
// what it has not written. A second SIGTERM within insistTime ends it all the same. SIGHUP
// does not: a service manager may send it together with SIGTERM, and a program that rotates
// logs sends it to servers in general.
func (e *ending) wait(stop <-chan os.Signal) error {
	var looked chan bool // the result of a look at the device, after a signal
	var why os.Signal    // the last signal
	var asked time.Time  // when the first SIGTERM came
	for {
		select {
		case <-e.dev.Done():
			e.log.info("ending", logged("why", "the device was removed"))
			return e.dev.Err()
		case what := <-e.dev.Warnings():
			e.log.warn(what)
		case claimed := <-looked:
			if !claimed {
				return e.obey(why)
			}
			sig, _ := why.(unix.Signal)
			e.log.warn(fmt.Sprintf(refused, unix.SignalName(sig)))
		case why = <-stop:
			isTerm := why == unix.SIGTERM
			if why == unix.SIGINT || isTerm && !asked.IsZero() && time.Since(asked) < insistTime {
				return e.obey(why)
			}
			if isTerm {
				asked = time.Now()
			}
			looked = e.look()
		}
	}
}

// refused is the log's message for a refused signal.
const refused = "%s is refused: the device is mounted; unmount it, or send another SIGTERM within 10 s"

// look calls claimed without waiting for it.
func (e *ending) look() chan bool {
	looked := make(chan bool, 1)
	go func() { looked <- e.claimed() }() // ends with the other process
	return looked
}

// claimed reports whether the device is mounted. If that cannot be found out, the signal
// is obeyed.
func (e *ending) claimed() bool {
	claimed, err := e.isClaimed(e.id)
	if err != nil {
		e.log.error("signal", err)
	}
	return claimed
}

func (e *ending) obey(s os.Signal) error {
	e.log.info("ending", logged("why", s.String()))
	if err := e.writeBack(e.id); err != nil {
		e.log.error("write dirty pages", err)
	}
	return nil
}

// deviceTask names the device that the role claimed or write is for.
type deviceTask struct {
	ID uint32 `json:"id"`
}

// exitClaimed is the exit status of the role claimed for a device that is mounted, or
// claimed in another way, or cannot be opened.
const exitClaimed = 5

// isClaimedInChild reports whether a device is mounted, or claimed in the same way. A
// server must not open its own device, so another process looks.
func isClaimedInChild(id uint32) (bool, error) {
	l := &launch{role: claimedRole, task: func([]string) any { return deviceTask{id} }}
	state, err := l.call()
	if err == nil && state.ExitCode() == exitClaimed {
		return true, nil
	}
	if err = callFailed(state, err); err != nil {
		return false, fmt.Errorf("look whether %s is mounted: %w", ublk.BlockPath(id), err)
	}
	return false, nil
}

// runClaimed is the main function of that process.
func (p *Program) runClaimed(args []string) int {
	var task deviceTask
	if _, err := receive(claimedRole, args, &task); err != nil {
		report.Print(p.Err, rawname.Error(err), "")
		return report.ExitUsage
	}
	// A server cannot open a device without a node, and a file system may still be on it.
	if claimed, err := loop.IsClaimed(task.ID); claimed || err != nil {
		return exitClaimed
	}
	return report.ExitDone
}

// writeBackInChild calls loop.WriteBack in another process, because a server must not open its
// own device.
func writeBackInChild(id uint32) error {
	l := &launch{role: writeRole, task: func([]string) any { return deviceTask{id} }}
	if err := callFailed(l.call()); err != nil {
		return fmt.Errorf("write the dirty pages of %s: %w", ublk.BlockPath(id), err)
	}
	return nil
}

// runWrite is the main function of that process.
func (p *Program) runWrite(args []string) int {
	var task deviceTask
	if _, err := receive(writeRole, args, &task); err != nil {
		report.Print(p.Err, rawname.Error(err), "")
		return report.ExitUsage
	}
	ctl, err := ublk.OpenControl()
	if err == nil {
		err = errors.Join(loop.WriteBack(ctl, task.ID), ctl.Close())
	}
	if err != nil {
		report.Print(p.Err, rawname.Error(err), "")
		return report.ExitFailed
	}
	return report.ExitDone
}

// endSignals returns the signals that end a server in order. A closing terminal does not
// end a server whose caller ignores SIGHUP (nohup).
func endSignals() []os.Signal {
	signals := []os.Signal{unix.SIGINT, unix.SIGTERM}
	if !signal.Ignored(unix.SIGHUP) {
		signals = append(signals, unix.SIGHUP)
	}
	return signals
}

// nameProcess makes ps show the program's name. Without it ps shows "exe", from the
// executed path.
func nameProcess() { _ = os.WriteFile("/proc/self/comm", []byte("ublk-loop"), 0) }
