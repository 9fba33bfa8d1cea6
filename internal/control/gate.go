package control

import (
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// gate lets any number of goroutines in while it is open, and none while it is closed.
type gate struct {
	mu     sync.Mutex // protects the fields below
	inside int
	empty  chan struct{} // made by shut; the last goroutine that leaves closes it and sets it to nil
	closed chan struct{} // closed when the gate opens again; nil while the gate is open
}

// enter waits until the gate is open, and enters. The caller must call leave.
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

// close closes the gate until open, and waits until all goroutines have left. It returns
// an error that wraps EBUSY, and opens the gate again, if that takes longer than
// patience.
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

// shut closes the gate. The last goroutine that leaves closes the returned channel. shut
// returns nil if no goroutine is inside.
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

// open opens the gate for those who wait.
func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	close(g.closed)
	g.closed = nil
}
