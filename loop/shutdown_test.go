package loop

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/loop/serving"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// While the end of a device waits for the lock of its state, which another process may keep for longer than a device or its process
// may be silent, the time does not count as silence.
func TestLockIsNoSilence(t *testing.T) {
	const patience, locked = time.Minute, 5 * time.Minute / 2
	for _, hangs := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			begun := time.Now()
			d := &served{dev: &Device{dev: &ublk.Device{}, apart: &apartTarget{process: &silentProcess{}}}, gone: make(chan struct{})}
			ended := make(chan struct{})
			end := func() error {
				defer close(ended)
				d.dev.locking.Add(1)
				time.Sleep(locked)
				d.dev.locking.Add(-1)
				if hangs {
					time.Sleep(2 * patience)
				}
				return nil
			}
			err := (&Server{opts: ServerOptions{Patience: patience}}).patiently(d, end)
			if waited := time.Since(begun); errors.Is(err, unix.ETIMEDOUT) != hangs || waited < locked || waited > locked+patience {
				t.Errorf("hangs %v: stop: error %v after %s", hangs, err, waited)
			}
			<-ended
		})
	}
	synctest.Test(t, func(t *testing.T) {
		d := &served{dev: &Device{dev: &ublk.Device{}, apart: &apartTarget{process: &silentProcess{}}}, gone: make(chan struct{})}
		d.dev.locking.Add(1)
		go func() { // ends below
			time.Sleep(5 * serving.AnswerPatience / 2)
			d.dev.locking.Add(-1)
			close(d.gone)
		}()
		if err := d.awaitRemoval(); err != nil {
			t.Errorf("removal: error %v", err)
		}
	})
}
