package daemon

import (
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

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
