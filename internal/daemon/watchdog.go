package daemon

import (
	"fmt"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// watchdog tells the service manager that the server is alive, and returns what
// says when to tell it again, until end is called.
func (s *many) watchdog() (due <-chan time.Time, end func()) {
	if s.task.Watchdog == 0 {
		return nil, func() {}
	}
	s.alive()
	ticker := time.NewTicker(s.task.Watchdog)
	return ticker.C, ticker.Stop
}

// alive tells the service manager that the server is, if that wants to know.
func (s *many) alive() {
	if s.task.Watchdog == 0 {
		return
	}
	if err := notify(s.files[notifyFile], "WATCHDOG=1"); err != nil {
		s.log.error("watchdog", err)
	}
}

// watchdogPeriod returns how often the service manager wants to hear from this
// process, 0 for never: twice in the time after which it would end it
// (sd_watchdog_enabled(3)).
func watchdogPeriod(getenv func(string) string, pid int) (time.Duration, error) {
	text := getenv("WATCHDOG_USEC")
	if owner := getenv("WATCHDOG_PID"); text == "" || owner != "" && owner != strconv.Itoa(pid) {
		return 0, nil
	}
	usec, err := strconv.ParseUint(text, 10, 53)
	if err != nil || usec == 0 {
		return 0, fmt.Errorf("WATCHDOG_USEC is %q: %w", text, unix.EINVAL)
	}
	return time.Duration(usec) * time.Microsecond / 2, nil
}
