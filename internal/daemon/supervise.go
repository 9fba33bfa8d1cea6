package daemon

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"time"

	"github.com/ublk-loop/ublk-loop/internal/report"
)

// supervise runs a server of many devices in another process. If the server crashes or is
// killed, supervise starts another server, which takes over the devices. If the server
// ends in any other way, supervise ends with the same result. It passes the end signals
// on to the server.
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
		log.error("server", fmt.Errorf("%s; starting another server", ended))
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

// crashed reports whether a server has left its devices for another server.
func crashed(ended *os.ProcessState) bool { return !ended.Exited() || ended.ExitCode() == exitCrashed }

// longestRestart limits the pause between two servers. A server that runs for longer
// resets the pause.
const longestRestart = 5 * time.Second

func nextPause(last time.Duration) time.Duration {
	return min(max(2*last, 10*time.Millisecond), longestRestart)
}

// superviseOne starts a server and waits for its end. It passes signals on to the server.
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
	go func() { // the code below waits for it
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

// exitError returns nil if a server ended in order. Otherwise the server has already
// reported its error.
func exitError(code int) error {
	if code == report.ExitDone {
		return nil
	}
	return report.ErrReported
}
