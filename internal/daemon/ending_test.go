package daemon

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap/zapcore"
	"golang.org/x/sys/unix"
)

// endingFake is a device that ends when a test says so.
type endingFake struct {
	done     chan struct{}
	err      error
	warnings chan string
}

func (f *endingFake) Done() <-chan struct{} { return f.done }
func (f *endingFake) Err() error            { return f.err }

func (f *endingFake) Warnings() <-chan string { return f.warnings }

// endingTest is a server that waits for its end, with a log that a test can read.
type endingTest struct {
	*endingFake
	stop  chan os.Signal
	ended chan error
	text  bytes.Buffer
	wrote int // calls of writeBack
}

func (e *endingTest) writeBack(uint32) error {
	e.wrote++
	return nil
}

func startEnding(isClaimed func(uint32) (bool, error)) *endingTest {
	e := &endingTest{endingFake: &endingFake{done: make(chan struct{}), warnings: make(chan string)}, stop: make(chan os.Signal, 1), ended: make(chan error, 1)}
	encoder := zapcore.NewJSONEncoder(zapcore.EncoderConfig{MessageKey: "msg"})
	log := &logger{zapcore.NewCore(encoder, zapcore.AddSync(&e.text), zapcore.InfoLevel)}
	go func() {
		e.ended <- (&ending{dev: e.endingFake, log: log, isClaimed: isClaimed, writeBack: e.writeBack}).wait(e.stop)
	}()
	return e
}

// is checks whether the server has ended after all that was sent to it.
func (e *endingTest) is(t *testing.T, what string, ended bool) {
	t.Helper()
	synctest.Wait()
	select {
	case err := <-e.ended:
		if !ended || err != nil {
			t.Errorf("%s: ended with %v", what, err)
		}
	default:
		if ended {
			t.Errorf("%s: not ended", what)
			close(e.done)
		}
	}
}

// Texts about wrong blocks are in the log, and do not end the server.
func TestCorruptionIsLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := startEnding(nil)
		e.warnings <- "verity: data block 7 is corrupted"
		e.is(t, "a wrong block", false)
		if !strings.Contains(e.text.String(), "verity: data block 7 is corrupted") {
			t.Errorf("the log is %q", e.text.String())
		}
		close(e.done)
	})
}

// While the device is mounted, only a second SIGTERM within ten seconds ends its server, or SIGINT.
func TestTerminationOfAMountedDevice(t *testing.T) {
	mounted := func(uint32) (bool, error) { return true, nil }
	synctest.Test(t, func(t *testing.T) {
		e := startEnding(mounted)
		e.stop <- unix.SIGTERM
		e.is(t, "SIGTERM", false)
		if !strings.Contains(e.text.String(), "SIGTERM is refused") {
			t.Errorf("the log is %q", e.text.String())
		}
		time.Sleep(insistTime)
		e.stop <- unix.SIGTERM
		e.is(t, "SIGTERM ten seconds later", false)
		time.Sleep(insistTime - time.Second)
		e.stop <- unix.SIGTERM
		e.is(t, "SIGTERM nine seconds later", true)
	})
	synctest.Test(t, func(t *testing.T) { // a service manager may send both
		e := startEnding(mounted)
		e.stop <- unix.SIGTERM
		e.is(t, "SIGTERM", false)
		for range 2 {
			e.stop <- unix.SIGHUP
			e.is(t, "SIGHUP", false)
		}
		if !strings.Contains(e.text.String(), "SIGHUP is refused") {
			t.Errorf("the log is %q", e.text.String())
		}
		e.stop <- unix.SIGTERM
		e.is(t, "a second SIGTERM", true)
	})
	synctest.Test(t, func(t *testing.T) {
		e := startEnding(mounted)
		e.stop <- unix.SIGINT
		e.is(t, "SIGINT", true)
	})
}

// SIGTERM or SIGHUP ends the server of a device that is not mounted, or of which that is not known.
func TestTerminationOfAnUnusedDevice(t *testing.T) {
	for name, isClaimed := range map[string]func(uint32) (bool, error){
		"unused":  func(uint32) (bool, error) { return false, nil },
		"unknown": func(uint32) (bool, error) { return false, errors.New("no process") },
	} {
		synctest.Test(t, func(t *testing.T) {
			for _, s := range []os.Signal{unix.SIGTERM, unix.SIGHUP} {
				e := startEnding(isClaimed)
				e.stop <- s
				e.is(t, name, true)
				if e.wrote != 1 {
					t.Errorf("%s: dirty pages are written %d times", name, e.wrote)
				}
			}
		})
	}
}

// A look at the device that takes long delays neither a second SIGTERM nor the removal of the device.
func TestTerminationWhileLooking(t *testing.T) {
	for name, end := range map[string]func(*endingTest){
		"a second SIGTERM": func(e *endingTest) { e.stop <- unix.SIGTERM },
		"the removal":      func(e *endingTest) { close(e.done) },
	} {
		synctest.Test(t, func(t *testing.T) {
			looks := make(chan struct{})
			e := startEnding(func(uint32) (bool, error) { <-looks; return true, nil })
			e.stop <- unix.SIGTERM
			e.is(t, "SIGTERM", false)
			end(e)
			e.is(t, name, true)
			close(looks)
		})
	}
}
