package daemon

import (
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

// endSignals are the signals that end a server in order. That of a terminal
// which closes is none where the caller has it ignored (nohup).
func endSignals() []os.Signal {
	signals := []os.Signal{unix.SIGINT, unix.SIGTERM}
	if !signal.Ignored(unix.SIGHUP) {
		signals = append(signals, unix.SIGHUP)
	}
	return signals
}

// nameProcess has ps show the name of the program. The path that was executed ends in
// exe.
func nameProcess() { _ = os.WriteFile("/proc/self/comm", []byte("ublk-loop"), 0) }
