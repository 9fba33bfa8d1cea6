package daemon

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"time"

	"github.com/ublk-loop/ublk-loop/internal/report"
)

// supervise runs a server of many devices in another process, and another one
// whenever that has been killed or has crashed: it takes the devices over. It
// ends with a server that ends by itself, as that does, and is told to by the
// signals that end one.
func supervise(l *launch, log *logger) error {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, endSignals()...)
	for pause := time.Duration(0); ; pause = nextPause(pause) {
		started := time.Now()
		ended, err := superviseOne(l, signals)
		if err != nil {
			return err
		}
		if !crashed(ended) {
			return exitError(ended.ExitCode())
		}
		log.error("server", fmt.Errorf("%s; another takes its place", ended))
		if time.Since(started) > longestRestart {
			pause = 0
		}
		select {
		case <-time.After(pause):
		case <-signals:
			return nil
		}
	}
}

// crashed reports whether a server has left its devices to another.
func crashed(ended *os.ProcessState) bool { return !ended.Exited() || ended.ExitCode() == exitCrashed }

// longestRestart is the longest time between two servers, where one after the
// other does not live for as long.
const longestRestart = 5 * time.Second

func nextPause(last time.Duration) time.Duration {
	return min(max(2*last, 10*time.Millisecond), longestRestart)
}

// superviseOne starts a server and waits for its end. Signals go to it.
func superviseOne(l *launch, signals <-chan os.Signal) (*os.ProcessState, error) {
	process, err := l.start(os.Stderr)
	if err != nil {
		return nil, fmt.Errorf("start server: %w", err)
	}
	type end struct {
		state *os.ProcessState
		err   error
	}
	ended := make(chan end, 1)
	go func() { // until the end of the process, which is waited for below
		state, err := process.Wait()
		ended <- end{state, err}
	}()
	for {
		select {
		case s := <-signals:
			if err := process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
				return nil, fmt.Errorf("end the server: %w", err)
			}
		case e := <-ended:
			return e.state, e.err
		}
	}
}

// exitError returns nil for a server that has ended in order; why another has
// not it has said itself.
func exitError(code int) error {
	if code == report.ExitDone {
		return nil
	}
	return report.ErrReported
}
