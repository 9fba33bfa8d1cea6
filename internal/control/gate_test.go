package control

import (
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestGate(t *testing.T) {
	var g gate
	g.enter()
	if err := g.close(time.Millisecond); !errors.Is(err, unix.EBUSY) {
		t.Fatalf("closed with somebody inside: %v", err)
	}
	g.enter() // the gate is open again
	g.leave()
	closed := make(chan error)
	go func() { closed <- g.close(time.Minute) }()
	for g.isOpen() {
		time.Sleep(time.Millisecond)
	}
	entered := make(chan struct{})
	go func() { g.enter(); close(entered) }()
	g.leave() // the last goroutine leaves
	if err := <-closed; err != nil {
		t.Fatal(err)
	}
	select {
	case <-entered:
		t.Error("somebody came in")
	default:
	}
	g.open()
	<-entered
	g.leave()
	if err := g.close(0); err != nil {
		t.Errorf("nobody is inside: %v", err)
	}
}

func (g *gate) isOpen() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.closed == nil
}
