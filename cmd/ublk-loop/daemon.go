package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/internal/confine"
	"github.com/ublk-loop/ublk-loop/internal/eintr"
	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/internal/udev"
	"github.com/ublk-loop/ublk-loop/loop"
)

// selfPath is this program, even if another has taken its place meanwhile.
const selfPath = "/proc/self/exe"

// background is a server in a process of its own, until it stays.
//
//	startServer -> Ready -> Stay, or in between: End
//
// The server ends when its end of control says that ours is closed, so it ends
// with this process, too, however that ends. One that takes over a device stays
// once it has: others use the device already.
type background struct {
	ctx     context.Context // from interruptible
	process *os.Process
	control *os.File
	name    string
	// recovers says that the device was there before the server, and stays
	// after it, and this process is not asked.
	recovers bool
}

var _ server = (*background)(nil)

// startServer starts a server in the background.
func startServer(ctx context.Context, j *job) (server, error) {
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	defer func() { _ = theirs.Close() }()
	process, err := j.startProcess(theirs)
	if err != nil {
		_ = ours.Close()
		return nil, fmt.Errorf("start server: %w", err)
	}
	s := &background{ctx: ctx, process: process, control: ours, name: j.Name, recovers: j.Recover != nil}
	j.Warnings = append(j.Warnings, confine.ProtectFromOOM(process.Pid)...)
	if err := j.send(ours); err != nil {
		return nil, errors.Join(err, s.End())
	}
	return s, nil
}

// socketPair returns the two ends of a stream.
func socketPair() (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make sockets: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "server"), os.NewFile(uintptr(fds[1]), "control"), nil
}

// startProcess starts the server's process, with nothing of the caller's but
// what the job names.
func (j *job) startProcess(control *os.File) (*os.Process, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = null.Close() }()
	if err := confine.CloseInherited(); err != nil {
		return nil, err
	}
	files := []*os.File{null, null, null, control, j.file}
	j.FileFD, j.LogFD, j.NotifyFD, j.KeyFD = 4, -1, -1, -1
	if j.log != nil {
		j.LogFD = len(files)
		files = append(files, j.log)
	}
	if j.key != nil {
		j.KeyFD = len(files)
		files = append(files, j.key)
	}
	var process *os.Process
	err = confine.OnThread(func(warnings []string) error {
		j.Warnings = append(j.Warnings, warnings...)
		var err error
		process, err = os.StartProcess(selfPath, j.serverArgs(3), &os.ProcAttr{
			Dir: "/", Env: serverEnv(os.Environ()), Files: files,
			Sys: &syscall.SysProcAttr{Setsid: true},
		})
		return err
	})
	return process, err
}

// serverArgs returns the arguments of a server that reads its job from a
// descriptor.
func (j *job) serverArgs(control int) []string {
	return []string{"ublk-loop", serverCommand, fmt.Sprint(control), j.Name}
}

// serverEnv leaves of an environment what the Go runtime reads. The rest is
// the caller's affair.
func serverEnv(environ []string) []string {
	env := []string{}
	for _, v := range environ {
		if strings.HasPrefix(v, "GO") {
			env = append(env, v)
		}
	}
	return env
}

// errServerEnded is returned by Ready if the server ends before it serves.
var errServerEnded = errors.New("the server has ended")

// openUsable opens a new device for the first time. When it returns, others can
// open the device and its partitions.
func openUsable(ctx context.Context, device *client.Device) error {
	open := udev.Open
	if device.PartScan {
		open = udev.OpenScanned
	}
	disk, err := open(ctx, device.Device)
	if err != nil {
		return err
	}
	return disk.Close()
}

// Ready implements server.
func (s *background) Ready() (*client.Device, error) {
	stop := context.AfterFunc(s.ctx, s.stopReading)
	defer stop()
	line, err := bufio.NewReader(s.control).ReadBytes('\n')
	var a answer
	switch {
	case s.ctx.Err() != nil:
		return nil, context.Cause(s.ctx)
	case errors.Is(err, io.EOF), errors.Is(err, unix.ECONNRESET):
		return nil, errServerEnded
	case err != nil:
		return nil, err
	}
	if err := json.Unmarshal(line, &a); err != nil {
		return nil, fmt.Errorf("read the server's answer: %w", err)
	}
	if a.Status == nil {
		return nil, &hint.Error{Err: errors.New(a.Error), Hint: a.Hint}
	}
	if s.recovers {
		return a.Status, nil
	}
	return a.Status, s.whileServed(func(ctx context.Context) error {
		return openUsable(ctx, a.Status)
	})
}

// stopReading makes what reads from control return.
func (s *background) stopReading() { _ = s.control.SetReadDeadline(time.Unix(1, 0)) }

// whileServed calls a function with a context that is done when the server
// has ended, too.
func (s *background) whileServed(call func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(s.ctx)
	defer cancel(nil)
	ended := make(chan struct{})
	go func() { // until the end of this function, which waits for it
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

// Stay implements server.
func (s *background) Stay() error {
	if _, err := io.WriteString(s.control, stay); err != nil {
		return errServerEnded // nothing else keeps it from hearing
	}
	return errors.Join(s.control.Close(), s.process.Release())
}

// End implements server.
func (s *background) End() error {
	_ = s.control.Close()
	if s.recovers {
		return s.process.Release()
	}
	var info unix.Siginfo
	if err := eintr.Repeat(func() error {
		return unix.Waitid(unix.P_PID, s.process.Pid, &info, unix.WEXITED|unix.WNOWAIT, nil)
	}); err != nil {
		return fmt.Errorf("wait for the server: %w", err)
	}
	var err error
	if info.Code != cldExited {
		err = removeRemains(s.process.Pid)
	}
	_, waitErr := s.process.Wait()
	return errors.Join(err, waitErr)
}

// cldExited is the si_code of a process that ended by itself (sigaction(2)).
const cldExited = 1

// removeRemains removes the device of a server that was killed. The server has
// not been waited for, so that its number still is its own.
func removeRemains(pid int) error {
	drv, err := openKernel()
	if err != nil {
		return err
	}
	defer func() { _ = drv.Close() }()
	devices, err := drv.List()
	if err != nil {
		return err
	}
	for i := range devices {
		if devices[i].PID == pid {
			return drv.Detach(devices[i].ID, loop.DetachOptions{Force: true})
		}
	}
	return nil
}
