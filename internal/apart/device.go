package apart

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/loop/serving"
)

// Device is a device that the process serves. Several devices share threads by serving.Work.Pool.
type Device struct {
	process *Process
	number  uint64
	found   func(serving.Finding)
	ended   chan error
	over    chan struct{} // closed when the process has reported the end of the device
}

// Device returns another device.
func (p *Process) Device() *Device {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last++
	return &Device{process: p, number: p.last, ended: make(chan error, 1), over: make(chan struct{})}
}

// Serve does what loop.Apart says, except that the process goes on after an error.
func (d *Device) Serve(w *serving.Work) (<-chan error, error) {
	r := request{Work: w, head: head{Device: d.number}}
	if w.Key != nil {
		r.KeyBytes = len(w.Key.Bytes())
	}
	d.found = w.Found
	d.process.enter(d)
	if err := d.process.start(r, w.FDs...); err != nil {
		d.process.leave(d.number)
		return nil, d.process.explainRings(err)
	}
	return d.ended, nil
}

// Ask does what loop.Apart says.
func (d *Device) Ask(ctx context.Context, r *serving.Request) (serving.Answer, error) {
	return d.process.ask(ctx, request{Request: r, head: head{Device: d.number}, over: d.over}, r.FDs...)
}

// startPatience bounds the start of a device by a process that answers other requests. To read the index of a large
// store can take many minutes.
const startPatience = time.Hour

// start sends the work of a device, and waits until the process serves it.
func (p *Process) start(r request, fds ...int) error {
	ctx, giveUp := context.WithCancelCause(context.Background())
	defer giveUp(nil)
	go p.probe(ctx, giveUp) // ends with the context
	_, err := p.ask(ctx, r, fds...)
	return err
}

// probe gives up a start if the process does not answer another request, or after startPatience.
func (p *Process) probe(ctx context.Context, giveUp context.CancelCauseFunc) {
	answers := true
	for begun := time.Now(); answers && time.Since(begun) < startPatience; {
		select {
		case <-ctx.Done():
			return
		case <-time.After(serving.AnswerPatience):
			answers = p.isAnswering(ctx)
		}
	}
	giveUp(serving.ErrSilent)
}

// isAnswering reports whether the process answers a request, which is about no device.
func (p *Process) isAnswering(ctx context.Context) bool {
	ctx, end := context.WithTimeout(ctx, serving.AnswerPatience)
	defer end()
	_, err := p.ask(ctx, request{Request: &serving.Request{Op: serving.Stats}})
	return !errors.Is(err, context.DeadlineExceeded)
}

// Kill ends the process at once.
func (d *Device) Kill() { d.process.Kill() }

func (p *Process) enter(d *Device) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.devices[d.number] = d
}

// leave removes a device. It returns nil for a number that no device has.
func (p *Process) leave(number uint64) *Device {
	p.mu.Lock()
	defer p.mu.Unlock()
	d := p.devices[number]
	delete(p.devices, number)
	return d
}

func (p *Process) device(number uint64) *Device {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.devices[number]
}

// hearAll passes on what the process reports, until it fails or ends.
func (p *Process) hearAll() error {
	buf := make([]byte, maxReport)
	for {
		r, err := p.socket.receiveReport(buf)
		switch {
		case err != nil:
			return asEnd(err)
		case r.ID != 0:
			p.answer(&r)
		case r.Found != nil:
			if d := p.device(r.Device); d != nil && d.found != nil {
				d.found(*r.Found)
			}
		case r.Device != 0:
			p.end(&r)
		case r.Error == "":
			return fmt.Errorf("a report about nothing: %w", unix.EBADMSG)
		default:
			return r.err()
		}
	}
}

// end passes on the end of a device.
func (p *Process) end(r *report) {
	if d := p.leave(r.Device); d != nil {
		d.ended <- r.err()
		close(d.over)
	}
}

// watch owns the socket of a process in the sandbox, and reports the end of the process to its devices.
func (p *Process) watch() {
	p.err = p.hearAll()
	if p.err != nil {
		p.Kill()
	}
	p.err = p.explain(p.err)
	p.close()
	p.mu.Lock()
	devices := p.devices
	p.devices = make(map[uint64]*Device)
	p.mu.Unlock()
	for _, d := range devices {
		d.ended <- p.err
	}
	close(p.ended)
}
