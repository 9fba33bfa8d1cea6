package scrapers

import (
	"errors"
	"net"
	"os"
	"testing"
	"time"
)

// A listener refuses one client more than the maximum, until another client has gone.
func TestLimit(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	accepted := make(chan net.Conn, Max+1)
	go func() { // ends when the listener is closed
		limited := Limit(l)
		for {
			c, err := limited.Accept()
			if err != nil {
				close(accepted)
				return
			}
			accepted <- c
		}
	}()
	defer l.Close()
	dial := func() net.Conn {
		c, err := net.Dial("tcp", l.Addr().String())
		if err == nil {
			err = c.SetReadDeadline(time.Now().Add(time.Minute))
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	turnedAway := func(why string) {
		t.Helper()
		if _, err := dial().Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s is not turned away: %v", why, err)
		}
	}
	var first net.Conn
	for range Max {
		dial()
		first = <-accepted
	}
	turnedAway("one too many")
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	_ = first.Close() // a second Close counts only once
	dial()
	if c := <-accepted; c == nil {
		t.Error("none is served when another has gone")
	}
	turnedAway("a second in the place of one that was closed twice")
}
