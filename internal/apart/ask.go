package apart

import (
	"context"
	"errors"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/loop/serving"
)

// asked is the server's side of requests.
type asked struct {
	mu      sync.Mutex // protects what is below, and the socket from a close during a send
	closed  bool
	last    uint64 // ID of the last request
	answers map[uint64]chan *report
}

func newAsked() asked { return asked{answers: make(map[uint64]chan *report)} }

// Ask does what loop.Apart says.
func (p *Process) Ask(ctx context.Context, r *serving.Request) (serving.Answer, error) {
	id, answer := p.expect()
	defer p.forget(id)
	if err := p.send(request{Request: r, ID: id}, r.FDs...); err != nil {
		return serving.Answer{}, err
	}
	done := ctx.Done()
	for {
		select {
		case a := <-answer:
			if a.Answer == nil {
				a.Answer = &serving.Answer{}
			}
			return *a.Answer, a.err()
		case <-p.sandbox.Ended():
			return serving.Answer{}, errEnded
		case <-done:
			if r.Op == serving.Stats {
				return serving.Answer{}, ctx.Err()
			}
			_ = p.send(request{ID: id, Cancel: true}) // fails only if the process has ended
			done = nil
		}
	}
}

// expect returns the ID of a new request, and the channel for its answer.
func (p *Process) expect() (uint64, <-chan *report) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last++
	answer := make(chan *report, 1)
	p.answers[p.last] = answer
	return p.last, answer
}

func (p *Process) forget(id uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.answers, id)
}

// answer passes on an answer, if there is a request that waits for one.
func (p *Process) answer(r *report) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if answer := p.answers[r.ID]; answer != nil {
		answer <- r
		delete(p.answers, r.ID)
	}
}

// send sends a request.
func (p *Process) send(r request, fds ...int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return errEnded
	}
	err := p.socket.sendObject(r, fds...)
	if errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) {
		return errEnded
	}
	return err
}

// close closes the socket.
func (p *Process) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.closed = true
		p.socket.close()
	}
}
