package ublk

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ring"
	"github.com/ublk-loop/ublk-loop/ublk/uapi"
)

const controlPath = "/dev/ublk-control"

// cancelTimeout bounds the wait for an interrupted command.
const cancelTimeout = 5 * time.Second

// uringTransport sends commands through a ring of its own.
//
// It writes a uapi.CtrlCmd of 32 bytes to an entry's payload, which has 80 bytes on this ring, with
// the address of arg, which is mapped memory that Go does not move.
//
// The ring has a thread of its own. The kernel passes commands that sleep to worker threads of
// the submitting task. A task that stays keeps its workers for the next commands.
type uringTransport struct {
	calls chan call     // commands for the thread; closed by Close
	ended chan struct{} // closed at the end of the thread
}

type call struct {
	cmd   Command
	reply chan error
}

// uringControl is the state of the thread.
type uringControl struct {
	fd  int
	r   *ring.Ring
	arg []byte // a page for a command's buffer
}

func openTransport() (*uringTransport, error) {
	t := &uringTransport{calls: make(chan call), ended: make(chan struct{})}
	opened := make(chan error)
	go t.run(opened)
	if err := <-opened; err != nil {
		return nil, err
	}
	return t, nil
}

// run is the control thread. Close stops it and waits for its end.
func (t *uringTransport) run(opened chan<- error) {
	// The goroutine never unlocks the thread, so the thread ends here, and its workers in
	// the kernel end with it.
	runtime.LockOSThread()
	defer close(t.ended)
	u, err := openURingControl()
	opened <- err
	if err != nil {
		return
	}
	t.serve(u)
}

// serve carries out commands until Close. If it has to give up a command, it takes no
// further command, and waits for the end of that one.
func (t *uringTransport) serve(u *uringControl) {
	for c := range t.calls {
		err := u.do(c.cmd)
		c.reply <- err
		if errors.Is(err, ErrControlHung) {
			u.abandon()
			return
		}
	}
	u.close()
}

// abandon is close after a command that was given up. It waits for the end of the command and of its interruption. Until then,
// the kernel may write to arg, which therefore stays mapped if the wait fails.
func (u *uringControl) abandon() {
	if err := waitReady(u.r, 2, 0); err != nil {
		u.arg = nil
	}
	u.close()
}

// Do implements Transport.
func (t *uringTransport) Do(cmd Command) error {
	c := call{cmd: cmd, reply: make(chan error, 1)}
	select {
	case t.calls <- c:
		return <-c.reply
	case <-t.ended:
		return ErrControlHung
	}
}

// Close implements Transport.
func (t *uringTransport) Close() error {
	close(t.calls)
	<-t.ended
	return nil
}

func openURingControl() (*uringControl, error) {
	fd, err := unix.Open(controlPath, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENXIO) || errors.Is(err, unix.ENODEV) {
		return nil, fmt.Errorf("open %s: %w", controlPath, noControl(err))
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", controlPath, err)
	}
	u := &uringControl{fd: fd}
	if u.arg, err = unix.Mmap(-1, 0, unix.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANON); err != nil {
		u.close()
		return nil, fmt.Errorf("map a page for commands: %w", err)
	}
	if u.r, err = ring.New(ring.Options{Entries: 4, SQE128: true, SingleIssuer: true}); err != nil {
		u.close()
		return nil, err
	}
	return u, nil
}

// noControl returns why there is no control device: the driver is not loaded, or it is and this
// process has no device node, as in a container.
func noControl(err error) error {
	if _, statErr := os.Stat(classDir); statErr == nil {
		return err
	}
	return ErrNoDriver
}

func (u *uringControl) close() {
	if u.r != nil {
		_ = u.r.Close()
	}
	if u.arg != nil {
		_ = unix.Munmap(u.arg)
	}
	_ = unix.Close(u.fd)
}

// The kinds of an entry of the control ring.
const (
	dataCommand = iota
	dataCancel
)

// do sends one command and waits for its answer.
func (u *uringControl) do(cmd Command) error {
	if len(cmd.Buf) > len(u.arg) {
		return unix.E2BIG
	}
	copy(u.arg, cmd.Buf)
	u.prepare(cmd)
	res, err := u.wait(1, cmd.Timeout)
	if errors.Is(err, unix.ETIME) {
		res, err = u.cancel()
	}
	if err != nil {
		return err
	}
	copy(cmd.Buf, u.arg)
	if res < 0 {
		return unix.Errno(-res)
	}
	return nil
}

func (u *uringControl) prepare(cmd Command) {
	sqe := u.r.GetSQE()
	sqe.PrepURingCmd(ring.FD(u.fd), cmd.Op)
	sqe.UserData = dataCommand
	header := (*uapi.CtrlCmd)(sqe.Payload128())
	header.DevID = cmd.DevID
	header.QueueID = cmd.QueueID
	header.Data[0] = cmd.Data
	if len(cmd.Buf) > 0 {
		header.Len = uint16(len(cmd.Buf))
		header.Addr = ring.Address(u.arg)
	}
}

// cancel interrupts a command that takes too long, and returns its result. The result is EINTR
// if the interruption had an effect.
func (u *uringControl) cancel() (int32, error) {
	sqe := u.r.GetSQE()
	sqe.PrepCancel(dataCommand)
	sqe.UserData = dataCancel
	res, err := u.wait(2, cancelTimeout)
	if errors.Is(err, unix.ETIME) {
		return 0, ErrControlHung
	}
	return res, err
}

// wait waits for n completions, at most for a time (0 for no limit), and returns the result of
// the command among them.
func (u *uringControl) wait(n uint32, timeout time.Duration) (int32, error) {
	if err := waitReady(u.r, n, timeout); err != nil {
		return 0, err
	}
	var res int32
	for i := range n {
		if cqe := u.r.CQE(i); cqe.UserData == dataCommand {
			res = cqe.Res
		}
	}
	u.r.CQAdvance(n)
	return res, nil
}

// completions is the part of a ring that waitReady uses.
type completions interface {
	SubmitAndWait(n uint32) error
	SubmitAndWaitTimeout(n uint32, d time.Duration) error
	CQReady() uint32
}

var _ completions = (*ring.Ring)(nil)

// waitReady waits until n completions can be read. If the kernel has no memory for an entry,
// the ring returns with fewer, and the entry stays published. waitReady then enters the ring
// again. After a time (0 for no limit) it returns an error that wraps ETIME.
func waitReady(r completions, n uint32, timeout time.Duration) error {
	deadline := time.Now().Add(timeout)
	for {
		var err error
		if timeout == 0 {
			err = r.SubmitAndWait(n)
		} else {
			err = r.SubmitAndWaitTimeout(n, time.Until(deadline))
		}
		switch {
		case err != nil || r.CQReady() >= n:
			return err
		case timeout != 0 && !time.Now().Before(deadline):
			return fmt.Errorf("wait for commands: %w", unix.ETIME)
		}
	}
}
