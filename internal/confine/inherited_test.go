package confine

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestResetTimers(t *testing.T) {
	timers := []unix.ItimerWhich{unix.ItimerReal, unix.ItimerVirtual, unix.ItimerProf}
	for _, timer := range timers {
		hour := unix.Timeval{Sec: 3600}
		if _, err := unix.Setitimer(timer, unix.Itimerval{Interval: hour, Value: hour}); err != nil {
			t.Fatal(err)
		}
	}
	resetTimers()
	for _, timer := range timers {
		if left, err := unix.Getitimer(timer); err != nil || left != (unix.Itimerval{}) {
			t.Errorf("timer %d: %+v, error %v", timer, left, err)
		}
	}
}
