package apart

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/sandbox"
)

// Publisher is a process in a sandbox that gives a text of the server to the clients of a listener. It parses
// what the clients send. It can ask for nothing but the text.
type Publisher struct {
	process *Process
	ended   chan struct{} // closed at the end of Publish
}

// publisherBase is userBase for this process, so that it cannot reach the process that serves requests.
const publisherBase = userBase + 1<<22

// StartPublisher starts the process. The program, which is this one, must call RunPublisher. Clients wait
// until Publish is called.
func StartPublisher(path string, args, env []string, listener *os.File) (*Publisher, error) {
	p, err := startInside(&sandbox.Command{
		Path: path, Args: args, Env: env, Files: []*os.File{extraFD: listener}, User: publisherBase + uint32(os.Getpid()),
	}, (*Process).hear)
	if err != nil {
		return nil, fmt.Errorf("start the process for clients: %w", err)
	}
	return &Publisher{p, make(chan struct{})}, nil
}

// publishPause is the least time between two texts. Each text costs the server time and memory, and the process may be
// hostile.
const publishPause = 100 * time.Millisecond

// Publish gives the process the text when it asks, with a pause after each text. It returns why the process has ended.
// It calls sent after each text.
func (p *Publisher) Publish(text func() []byte, sent func()) error {
	defer close(p.ended)
	asked := make([]byte, 1)
	for pause := time.After(0); ; pause = time.After(publishPause) {
		_, _, err := p.process.socket.receive(asked, 0)
		if err == nil {
			<-pause
			err = p.process.socket.sendText(text())
			sent()
		}
		if err != nil {
			p.process.Kill()
			err = p.process.explain(asEnd(err))
			p.process.close()
			return err
		}
	}
}

// End ends the process, and waits until Publish has returned.
func (p *Publisher) End() {
	p.process.Kill()
	<-p.ended
}

// Pid returns the number of the process.
func (p *Publisher) Pid() int { return p.process.Pid() }

// sendText sends a text of any size.
func (s socket) sendText(text []byte) error {
	file, err := inMemory(text)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	return s.send([]byte{0}, int(file.Fd()))
}

// RunPublisher is the process. serve answers the clients of the listener, with a text that it gets from the
// server each time.
func RunPublisher(serve func(listener *os.File, text func() ([]byte, error)) error) error {
	a := &asker{socket: socket{SocketFD}}
	unix.CloseOnExec(a.socket.fd)
	unix.CloseOnExec(extraFD)
	if err := errors.Join(a.socket.say(sandbox.LimitThreads()), a.socket.hear()); err != nil {
		return err
	}
	err := sandbox.Enter(sandbox.PublishingCalls)
	if err := errors.Join(a.socket.say(err), err); err != nil {
		return err
	}
	return serve(os.NewFile(extraFD, "listener"), a.text)
}

// asker gets the text.
type asker struct {
	mu     sync.Mutex // held from a question to its answer
	socket socket
}

func (a *asker) text() ([]byte, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.socket.send([]byte{0}); err != nil {
		return nil, fmt.Errorf("ask the server: %w", err)
	}
	_, fds, err := a.socket.receive(make([]byte, 1), 1)
	if err != nil {
		return nil, err
	}
	if len(fds) != 1 {
		return nil, fmt.Errorf("the server sends no text: %w", unix.EBADMSG)
	}
	return readAll(fds[0])
}
