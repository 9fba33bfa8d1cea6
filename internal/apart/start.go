package apart

import (
	"cmp"
	"context"
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
	sandbox sandboxed
	socket  socket
	asked
	words *lastWords
	rings *sandbox.RingServer // nil if the process makes its rings itself
	// ringless is closed when the process gets no more rings from rings. Then ringsErr is why, or nil.
	ringless chan struct{}
	ringsErr error
	only     *Device       // of Serve
	ended    chan struct{} // closed when the process has ended
	err      error         // why it ended; read it after ended is closed
}

// sandboxed is a [sandbox.Process].
type sandboxed interface {
	Empty() error
	Kill()
	Ended() <-chan struct{}
	State() *os.ProcessState
	Pid() int
}

// These are descriptors of the process, besides its standard error, see lastWords.
const (
	SocketFD = 3 // its end of the sockets
	extraFD  = 4 // the other end of the lifeline until Settle, or /dev/null; in a Publisher the listener
)

// startTimeout bounds the start of the process, which takes milliseconds.
const startTimeout = 30 * time.Second

// userBase is added to the number of the server's process for the user and the group of the process. No
// system gives these numbers to users, and no two servers in a PID namespace have the same, so that no process can
// signal or trace another's. The number of a process has 22 bits.
const userBase = 0x70000000

// errEnded is the error of a process that has ended without a report.
var errEnded = errors.New("the process that serves the requests has ended")

// Start starts the process. The program, which is this one, must call Run. The process keeps a
// copy of lifeline open until Settle; nil is allowed. After an error, no process is left.
func Start(path string, args, env []string, lifeline *os.File) (*Process, error) {
	p, err := startInside(&sandbox.Command{
		Path: path, Args: args, Env: env, Files: []*os.File{extraFD: lifeline}, User: userBase + uint32(os.Getpid()),
	}, (*Process).startRings)
	if err != nil {
		return nil, err
	}
	go p.watch() // ends with the process
	return p, nil
}

// startInside starts a process and leads it into the sandbox. The last function returns the result of that. Of the process's
// files the command has only the last.
func startInside(c *sandbox.Command, inside func(*Process) error) (*Process, error) {
	p, err := startOutside(c)
	if err != nil {
		return nil, err
	}
	if err := p.confine(inside); err != nil {
		p.Kill()
		err = p.explain(err)
		p.close()
		return nil, fmt.Errorf("confine the process that serves the requests: %w", err)
	}
	return p, nil
}

// startOutside starts a process that is not in the sandbox yet.
func startOutside(c *sandbox.Command) (*Process, error) {
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	defer func() { _ = theirs.Close() }() // so that the end of the process is the end of the messages
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		ours.close()
		return nil, err
	}
	defer func() { _ = null.Close() }()
	words, mouth, err := newLastWords()
	if err != nil {
		ours.close()
		return nil, err
	}
	defer func() { _ = mouth.Close() }()
	c.Files = []*os.File{null, null, mouth, SocketFD: theirs, extraFD: cmp.Or(c.Files[extraFD], null)}
	started, err := sandbox.Start(c)
	if err != nil {
		ours.close()
		words.reason() // closes its end
		return nil, err
	}
	return &Process{sandbox: started, socket: ours, words: words, asked: newAsked(), ended: make(chan struct{})}, nil
}

// confine leads the process into the sandbox.
func (p *Process) confine(inside func(*Process) error) error {
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
	if err := inside(p); err != nil {
		return err
	}
	return unix.SetsockoptTimeval(p.socket.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{})
}

// startRings begins to make rings for the process, if it needs that, and hears whether it can have rings.
func (p *Process) startRings() error {
	fds, err := p.socket.hearWith(len(sandbox.RingServerFDs{}))
	if err != nil {
		return asEnd(err)
	}
	switch len(fds) {
	case 0:
	case len(sandbox.RingServerFDs{}):
		rings, err := sandbox.NewRingServer(sandbox.ServingRings, sandbox.RingServerFDs(fds))
		if err != nil {
			return err
		}
		p.rings, p.ringless = rings, make(chan struct{})
		go func() { // ends with the process, or by Settle
			p.ringsErr = rings.Serve()
			close(p.ringless)
			rings.Close() // fails requests
		}()
	default:
		closeFDs(fds)
		return fmt.Errorf("%d descriptors for rings: %w", len(fds), unix.EBADMSG)
	}
	return p.explainRings(p.hear())
}

// AwaitRingless waits until this process has made the last ring for the other one, and returns the error that prevents further
// ones, if that is why. It returns at once if the other process makes its rings itself.
func (p *Process) AwaitRingless() error {
	if p.rings == nil {
		return nil
	}
	<-p.ringless
	return p.ringsErr
}

// explainRings adds why this process makes no more rings to the error of a process that gets none.
func (p *Process) explainRings(err error) error {
	if !errors.Is(err, unix.ENOSYS) {
		return err
	}
	select {
	case <-p.ringless:
		if p.ringsErr != nil {
			err = fmt.Errorf("%w: %w", err, p.ringsErr)
		}
	default:
	}
	return err
}

// explain waits for the end of the process. It adds to an error that says no more than that the process has
// ended how it ended, and what it said last.
func (p *Process) explain(err error) error {
	<-p.sandbox.Ended()
	words := p.words.reason()
	if !errors.Is(err, errEnded) {
		return err
	}
	if words != "" {
		return fmt.Errorf("%w: %v: %s", err, p.sandbox.State(), words)
	}
	return fmt.Errorf("%w: %v", err, p.sandbox.State())
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

// Serve does what loop.Apart says, for the only device of the process.
func (p *Process) Serve(w *serving.Work) (<-chan error, error) {
	p.only = p.Device()
	result, err := p.only.Serve(w)
	if err != nil {
		p.Abandon()
		return nil, err
	}
	ended := make(chan error, 1)
	go func() { // ends with the process
		err := <-result
		if err != nil {
			p.Kill()
		}
		p.finish()
		<-p.ended
		ended <- err
	}()
	return ended, nil
}

// Ask does what loop.Apart says, for the only device of the process.
func (p *Process) Ask(ctx context.Context, r *serving.Request) (serving.Answer, error) {
	return p.only.Ask(ctx, r)
}

// Settle tells the process that it can give up what only its start has needed. Nobody waits for that. A process of Serve
// gets no more rings.
func (p *Process) Settle() {
	if p.only != nil && p.rings != nil {
		p.rings.Close()
	}
	_ = p.send(request{head: head{Settle: true}}) // fails only if the process has ended
}

// Kill ends the process at once.
func (p *Process) Kill() { p.sandbox.Kill() }

// Abandon ends the process at once, and waits until it has ended.
func (p *Process) Abandon() {
	p.Kill()
	<-p.ended
}

// Ended returns a channel that is closed when the process has ended.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// Err returns why the process ended. It is valid when Ended is closed.
func (p *Process) Err() error { return p.err }

// Pid returns the number of the process.
func (p *Process) Pid() int { return p.sandbox.Pid() }
