package apart

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/sandbox"
	"github.com/ublk-loop/ublk-loop/loop/serving"
)

// Process is the server's side of the process.
type Process struct {
	sandbox *sandbox.Process
	socket  socket
	asked
}

// These are descriptors of the process.
const (
	SocketFD   = 3 // its end of the sockets
	lifelineFD = 4 // the other end of the lifeline until Settle, or /dev/null
)

// startTimeout bounds the start of the process, which takes milliseconds.
const startTimeout = 30 * time.Second

// userBase is added to the number of the server's process for the user and the group of the process. No
// system gives these numbers to users, and no two servers have the same, so that no process can
// signal or trace another's. The number of a process has 22 bits.
const userBase = 0x70000000

// errEnded is the error of a process that has ended without a report.
var errEnded = errors.New("the process that serves the requests has ended")

// Start starts the process. The program, which is this one, must call Run. The process keeps a
// copy of lifeline open until Settle; nil is allowed. After an error, no process is left.
func Start(path string, args, env []string, lifeline *os.File) (*Process, error) {
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	defer func() { _ = theirs.Close() }()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		ours.close()
		return nil, err
	}
	defer func() { _ = null.Close() }()
	p := &Process{socket: ours, asked: newAsked()}
	p.sandbox, err = sandbox.Start(&sandbox.Command{
		Path: path, Args: args, Env: env, Files: []*os.File{null, null, null, theirs, cmp.Or(lifeline, null)}, User: userBase + uint32(os.Getpid()),
	})
	if err != nil {
		ours.close()
		return nil, err
	}
	_ = theirs.Close() // so that the end of the process is the end of the messages
	if err := p.confine(); err != nil {
		p.Abandon()
		return nil, fmt.Errorf("confine the process that serves the requests: %w", err)
	}
	return p, nil
}

// confine leads the process into the sandbox.
func (p *Process) confine() error {
	limit := unix.NsecToTimeval(startTimeout.Nanoseconds())
	if err := unix.SetsockoptTimeval(p.socket.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
		return err
	}
	if err := p.hear(); err != nil {
		return err
	}
	if err := p.sandbox.Empty(); err != nil {
		return err
	}
	if err := p.socket.say(nil); err != nil {
		return err
	}
	if err := p.hear(); err != nil {
		return err
	}
	return unix.SetsockoptTimeval(p.socket.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{})
}

// hear receives the result of a step.
func (p *Process) hear() error { return asEnd(p.socket.hear()) }

// asEnd returns the error for the end of the messages.
func asEnd(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET) {
		return errEnded
	}
	return err
}

// Serve does what loop.Apart says.
func (p *Process) Serve(w *serving.Work) (<-chan error, error) {
	err := p.pass(w)
	if err == nil {
		err = p.hear()
	}
	if err != nil {
		p.Abandon()
		return nil, err
	}
	ended := make(chan error, 1)
	go func() { // ends with the process
		err := p.hearEnd(w)
		if err != nil {
			p.Kill()
		}
		<-p.sandbox.Ended()
		p.close()
		ended <- err
	}()
	return ended, nil
}

// hearEnd passes on what the process finds and answers, until it reports its end.
func (p *Process) hearEnd(w *serving.Work) error {
	for {
		r, err := p.socket.receiveReport()
		switch {
		case err != nil:
			return asEnd(err)
		case r.Found != nil:
			if w.Found != nil {
				w.Found(*r.Found)
			}
		case r.ID != 0:
			p.answer(&r)
		default:
			return r.err()
		}
	}
}

// pass sends the work, its descriptors and its key.
func (p *Process) pass(w *serving.Work) error {
	message := work{Work: w}
	if w.Key != nil {
		message.KeyBytes = len(w.Key.Bytes())
	}
	if err := p.socket.sendObject(message, w.FDs...); err != nil {
		return fmt.Errorf("send the work: %w", err)
	}
	if w.Key == nil {
		return nil
	}
	// The key is not copied, because a copy may stay in registers, which the Go runtime saves in
	// memory that it does not wipe.
	if err := p.socket.send(w.Key.Bytes()); err != nil {
		return fmt.Errorf("send the key: %w", err)
	}
	return nil
}

// Settle tells the process that the device is in use, and that it can give up what only its start has
// needed. Nobody waits for that.
func (p *Process) Settle() { _ = p.send(request{Settle: true}) } // fails only if the process has ended

// Kill ends the process at once.
func (p *Process) Kill() { p.sandbox.Kill() }

// Abandon ends a process that serves nothing.
func (p *Process) Abandon() {
	p.Kill()
	<-p.sandbox.Ended()
	p.close()
}

// Pid returns the number of the process.
func (p *Process) Pid() int { return p.sandbox.Pid() }
