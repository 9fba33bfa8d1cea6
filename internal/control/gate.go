package control

import (
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// gate lets any number of goroutines in, until it is closed: then nobody is
// inside.
type gate struct {
	mu     sync.Mutex // protects what is below
	inside int
	empty  chan struct{} // closed by the last one inside; nil where nobody waits for that
	closed chan struct{} // closed when the gate opens again; nil while it is open
}

// enter waits until the gate is open. The caller calls leave.
func (g *gate) enter() {
	for {
		g.mu.Lock()
		closed := g.closed
		if closed == nil {
			g.inside++
		}
		g.mu.Unlock()
		if closed == nil {
			return
		}
		<-closed
	}
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.inside--; g.inside == 0 && g.empty != nil {
		close(g.empty)
		g.empty = nil
	}
}

// close lets nobody in any more, until open. It returns an error that wraps EBUSY,
// with the gate open, where somebody stays inside for longer than patience.
func (g *gate) close(patience time.Duration) error {
	empty := g.shut()
	if empty == nil {
		return nil
	}
	select {
	case <-empty:
		return nil
	case <-time.After(patience):
		g.open()
		return fmt.Errorf("devices are being added or removed: %w", unix.EBUSY)
	}
}

// shut closes the gate, and returns what the last one inside closes, nil where
// nobody is.
func (g *gate) shut() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = make(chan struct{})
	if g.inside == 0 {
		return nil
	}
	g.empty = make(chan struct{})
	return g.empty
}

// open lets in who waits.
func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.empty = nil
	close(g.closed)
	g.closed = nil
}
