package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/internal/confine"
	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/internal/report"
	"github.com/ublk-loop/ublk-loop/internal/wire"
	"github.com/ublk-loop/ublk-loop/loop"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// requester is who wants the device that a server serves.
type requester interface {
	// Ready says that the device can be used. After an error the server
	// ends: nobody wants the device any more.
	Ready(client.Device) error
	// Failed says why there is no device.
	Failed(answer)
	// Ending says that the device is going.
	Ending()
}

// serverMain is the process that serves a device.
func serverMain(args []string) int {
	signal.Ignore(unix.SIGPIPE) // a broken output is no reason to end
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, endSignals()...)
	// The path that was executed says exe.
	_ = os.WriteFile("/proc/self/comm", []byte("ublk-loop"), 0)
	j, control, err := receiveJob(args)
	if err != nil {
		report.Print(os.Stderr, err.Error(), "")
		return report.ExitUsage
	}
	var r requester = &starter{control}
	if j.Foreground {
		_ = control.Close()
		r = &user{out: os.Stdout, errOut: os.Stderr, notify: j.notify, json: j.JSON}
	}
	if err := serve(j, r, stop); err != nil {
		return report.ExitFailed
	}
	return report.ExitDone
}

// endSignals are the signals that end a server in order. That of a terminal
// which closes is none where the caller has it ignored (nohup).
func endSignals() []os.Signal {
	signals := []os.Signal{unix.SIGINT, unix.SIGTERM}
	if !signal.Ignored(unix.SIGHUP) {
		signals = append(signals, unix.SIGHUP)
	}
	return signals
}

// serve serves a device until a signal, its removal or its failure. Errors
// have been reported or logged when it returns.
func serve(j *job, r requester, stop <-chan os.Signal) error {
	program, err := confine.LockMemory()
	if err != nil {
		j.Warnings = append(j.Warnings, fmt.Sprintf("may wait for memory that its own device has to free: %v", err))
	}
	confine.ReserveProcessors(cmp.Or(j.Config.Queues, runtime.NumCPU()))
	ctl, dev, err := attach(j)
	if err != nil {
		err = j.describe(err)
		r.Failed(answer{Error: err.Error(), Hint: report.Hint(err)})
		return err
	}
	served := dev.Status()
	status := wire.Device(&served)
	confine.ReserveProcessors(status.Queues) // one that is taken over may have more
	log := j.logger(status.ID)
	for _, w := range j.Warnings {
		log.warn(w)
	}
	log.info("serving", logged("device", status.Device), logged("file", status.File),
		logged("buffer_mode", status.BufferMode), loggedBool("direct_io", status.DirectIO))
	err = j.ready(r, status)
	if err != nil {
		r.Failed(answer{Error: err.Error(), Hint: report.Hint(err)})
	} else {
		confine.QuietGC()
		program.GiveBack()
		err = waitForEnd(dev, stop, log)
	}
	r.Ending()
	err = errors.Join(err, dev.Close(), ctl.Close())
	if err != nil {
		log.error("ended", err)
		return err
	}
	log.info("ended")
	return nil
}

// describe says what a failed attempt was at.
func (j *job) describe(err error) error {
	if j.Recover != nil {
		return report.Name(err, "recover", ublk.BlockPath(*j.Recover))
	}
	return describeAdd(err, j.Name, &j.Config)
}

// describeAdd says what a failed attempt to make a device of a file was at.
func describeAdd(err error, file string, cfg *loop.Config) error {
	err = report.Name(err, "attach", file)
	switch {
	case cfg.ID != nil && errors.Is(err, unix.EEXIST):
		err = report.Name(err, "make", ublk.BlockPath(*cfg.ID))
		return &hint.Error{Err: err, Hint: "that one is taken; without {id} it is the first free one"}
	case cfg.ZeroCopy == loop.SwitchOn && errors.Is(err, ublk.ErrNotSupported):
		return &hint.Error{Err: err, Hint: "leave {zero_copy} out; ublk-loop features shows what the kernel has"}
	}
	return err
}

func attach(j *job) (*ublk.Control, *loop.Device, error) {
	ctl, err := ublk.OpenControl()
	if err != nil {
		return nil, nil, err
	}
	dev, err := j.device(ctl)
	if err != nil {
		return nil, nil, errors.Join(err, ctl.Close())
	}
	if err := j.file.Close(); err != nil {
		return nil, nil, errors.Join(err, dev.Close(), ctl.Close())
	}
	return ctl, dev, nil
}

// waitForEnd returns when the device has ended, or is to end.
func waitForEnd(dev *loop.Device, stop <-chan os.Signal, log *logger) error {
	select {
	case <-dev.Done():
		log.info("ending", logged("why", "the device was removed"))
		return dev.Err()
	case s := <-stop:
		log.info("ending", logged("why", s.String()))
		return nil
	}
}

// logger returns the server's log: a file that was asked for, standard error
// in the foreground, else none.
func (j *job) logger(id uint32) *logger {
	switch {
	case j.log != nil:
		// The story of a crash goes there, too.
		_ = debug.SetCrashOutput(j.log, debug.CrashOptions{})
		return newLogger(j.log, id)
	case j.Foreground:
		return newLogger(os.Stderr, id)
	}
	return noLogger()
}

// starter is the client of a server in the background: the add that waits at
// the other end of a socket.
type starter struct {
	control *os.File
}

var _ requester = (*starter)(nil)

// Ready implements requester. It returns an error if add ends without telling the
// server to stay.
func (s *starter) Ready(status client.Device) error {
	if err := s.say(answer{Status: &status}); err != nil {
		return err
	}
	word := make([]byte, len(stay))
	if _, err := io.ReadFull(s.control, word); err != nil || string(word) != stay {
		return errors.New("add has ended before it could use the device")
	}
	return s.control.Close()
}

// Failed implements requester.
func (s *starter) Failed(a answer) { _ = s.say(a) }

// Ending implements requester.
func (s *starter) Ending() {}

func (s *starter) say(a answer) error {
	if err := json.NewEncoder(s.control).Encode(a); err != nil {
		return fmt.Errorf("answer to add: %w", err)
	}
	return nil
}
