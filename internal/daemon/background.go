package daemon

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/internal/confine"
	"github.com/ublk-loop/ublk-loop/internal/eintr"
	"github.com/ublk-loop/ublk-loop/internal/process"
	"github.com/ublk-loop/ublk-loop/internal/report"
	"github.com/ublk-loop/ublk-loop/internal/udev"
	"github.com/ublk-loop/ublk-loop/loop"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// background is a server in a process of its own, from its start until it stays.
//
//	startInBackground -> Ready -> Keep, or in between: Abandon
//
// The server ends when this process closes its end of control, and therefore also when
// this process ends for any reason. A server that takes over a device stays as soon as it
// has the device, because the device already has users.
type background struct {
	ctx      context.Context // done when the user interrupts, with the cause
	process  *os.Process
	control  *os.File
	lifeline *process.Lifeline // of the server and the processes that it starts
	job      *Job
	unit     *unitMaker // nil in tests, and for the root file system
	ends     bool       // the server ends by itself, or has ended
	// recovers says that the server takes over an existing device. Such a server stays
	// without being told to.
	recovers bool
}

var _ Pending = (*background)(nil)

// startInBackground starts a server in the background.
func startInBackground(ctx context.Context, j *Job) (Pending, error) {
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	defer func() { _ = theirs.Close() }()
	lifeline, otherEnd, err := process.NewLifeline()
	if err != nil {
		return nil, errors.Join(err, ours.Close())
	}
	defer func() { _ = otherEnd.Close() }()
	s := &background{ctx: ctx, control: ours, lifeline: lifeline, job: j, recovers: j.Recover != nil}
	if err := s.start(descriptors{controlFile: theirs, lifelineFile: otherEnd}, theirs); err != nil {
		return nil, err
	}
	return s, nil
}

// start starts the server, which reads its task from control.
func (s *background) start(files descriptors, control *os.File) error {
	j := s.job
	if j.Log == nil && !j.Root { // the journal of the initramfs ends with it
		if files[journalFile] = openJournal(); files[journalFile] != nil {
			defer func() { _ = files[journalFile].Close() }()
		}
	}
	if !j.Root { // systemd would end a unit of the initramfs when it changes the root
		s.unit = newUnitMaker(s.ctx)
	}
	server, told, err := j.launch(files).startSilently(control)
	if err != nil {
		s.unit.close()
		s.lifeline.Close()
		_ = s.control.Close()
		return fmt.Errorf("start server: %w", err)
	}
	s.process = server
	// The server does not know its task yet, so that it is protected before it has a
	// device.
	j.Warnings = append(j.Warnings, confine.ProtectFromOOM(server.Pid)...)
	if _, err := s.control.Write(told); err != nil {
		return errors.Join(fmt.Errorf("tell the server its task: %w", err), s.Abandon())
	}
	return nil
}

// socketPair returns the two ends of a stream.
func socketPair() (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make sockets: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "server"), os.NewFile(uintptr(fds[1]), "control"), nil
}

// errServerEnded is returned by Ready if the server ends before it serves.
var errServerEnded = errors.New("the server has ended")

// openUsable opens a new device for the first time. When it returns, other programs can
// open the device and its partitions.
func openUsable(ctx context.Context, device *client.Device) error {
	open := udev.Open
	if device.PartScan {
		open = udev.OpenScanned
	}
	disk, err := open(ctx, device.Device, device.MajMin)
	if err != nil {
		return err
	}
	return disk.Close()
}

// Ready implements Pending.
func (s *background) Ready() (*client.Device, error) {
	defer s.unit.close()
	stop := context.AfterFunc(s.ctx, s.interrupt)
	defer stop()
	line, err := bufio.NewReader(s.control).ReadBytes('\n')
	var a answer
	switch {
	case s.ctx.Err() != nil && (!s.recovers || errors.Is(err, os.ErrDeadlineExceeded)):
		return nil, context.Cause(s.ctx)
	case errors.Is(err, io.EOF), errors.Is(err, unix.ECONNRESET):
		s.ends = true
		return nil, errServerEnded
	case err != nil:
		return nil, err
	}
	if err := json.Unmarshal(line, &a); err != nil {
		return nil, fmt.Errorf("read the server's answer: %w", err)
	}
	if a.Device == nil {
		s.ends = true
		return nil, a.err()
	}
	defer s.enterUnit(&a)() // the rest needs no unit, so that both go on at the same time
	if s.recovers {
		return a.Device, nil
	}
	return a.Device, s.whileServed(func(ctx context.Context) error {
		return openUsable(ctx, a.Device)
	})
}

// enterUnit starts to give the server a unit of its own, also for the process that serves its
// requests. The returned function waits for that.
func (s *background) enterUnit(a *answer) (wait func()) {
	if s.unit == nil {
		return func() {}
	}
	pids := []int{s.process.Pid}
	if a.Apart != 0 {
		pids = append(pids, a.Apart)
	}
	entered := s.unit.enter(pids, a.Device)
	return func() { s.job.Warnings = append(s.job.Warnings, entered()...) }
}

// takeoverPatience bounds the time for which an interrupted command waits for a server that takes over a device. That
// server goes on in any case.
const takeoverPatience = 5 * time.Second

// interrupt ends a blocked read from control. A server that takes over a device has a moment to answer.
func (s *background) interrupt() {
	if s.recovers {
		_ = s.control.SetReadDeadline(time.Now().Add(takeoverPatience))
		return
	}
	s.stopReading()
}

// stopReading ends a blocked read from control.
func (s *background) stopReading() { _ = s.control.SetReadDeadline(time.Unix(1, 0)) }

// whileServed calls a function with a context that also ends when the server ends.
func (s *background) whileServed(call func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(s.ctx)
	defer cancel(nil)
	ended := make(chan struct{})
	go func() { // this function waits for it
		defer close(ended)
		if _, err := s.control.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			cancel(errServerEnded)
		}
	}()
	err := call(ctx)
	s.stopReading()
	<-ended
	if err == nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return err
}

// Keep implements Pending.
func (s *background) Keep() error {
	if _, err := io.WriteString(s.control, stay); err != nil {
		return errServerEnded // the write fails only if the server has ended
	}
	s.lifeline.Close()
	return errors.Join(s.control.Close(), s.process.Release())
}

// Abandon implements Pending: it is what an interrupted add ends with. The server ends by
// itself once its end of control is closed, and removes its device. What a server leaves
// that was killed is removed here. The process that serves the requests ends with the server, but
// may take a moment longer.
func (s *background) Abandon() error {
	_ = s.control.Close()
	defer s.lifeline.Close()
	if s.recovers && !s.ends {
		return s.process.Release()
	}
	var info unix.Siginfo
	if err := eintr.Repeat(func() error {
		return unix.Waitid(unix.P_PID, s.process.Pid, &info, unix.WEXITED|unix.WNOWAIT, nil)
	}); err != nil {
		return fmt.Errorf("wait for the server: %w", err)
	}
	err := s.lifeline.Wait(endTimeout)
	if err != nil {
		err = fmt.Errorf("wait for the process that serves the requests: %w", err)
	}
	if info.Code != cldExited && !s.recovers {
		err = errors.Join(err, removeRemains(s.process.Pid), loop.SweepLocks())
	}
	state, waitErr := s.process.Wait()
	return errors.Join(err, waitErr, diedOf(state))
}

// diedOf returns an error that says how a server ended that has not ended in order.
func diedOf(state *os.ProcessState) error {
	if state == nil || state.ExitCode() == report.ExitDone || state.ExitCode() == report.ExitFailed {
		return nil
	}
	return fmt.Errorf("end of the server: %v", state)
}

// endTimeout bounds the end of a killed process, which may wait for a disk that hangs.
const endTimeout = 20 * time.Second

// cldExited is the si_code of a process that exited (sigaction(2)).
const cldExited = 1

// removeRemains removes the device of a killed server. The caller has not yet waited for
// the process, so that its pid still belongs to it.
func removeRemains(pid int) error {
	ctl, err := ublk.OpenControl()
	if err != nil {
		return err
	}
	defer func() { _ = ctl.Close() }()
	devices, err := loop.List(ctl)
	if err != nil {
		return err
	}
	for i := range devices {
		if devices[i].PID == pid {
			return loop.Detach(ctl, devices[i].ID, loop.DetachOptions{Force: true, DiskSequence: &devices[i].DiskSequence, Tag: devices[i].Tag})
		}
	}
	return nil
}
