// Command testrun runs the tests: those that need no kernel on this machine, and the
// others on each bed where they test something more. It plans the run before it starts a
// machine, and ends with the line "N passed, N failed, N skipped".
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"
)

func main() {
	o, err := parse(os.Args[1:], os.Stderr)
	if err != nil {
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	good, err := execute(ctx, o, &lineWriter{out: os.Stdout})
	interrupted := ctx.Err() != nil
	stop()
	switch {
	case interrupted:
		fmt.Fprintln(os.Stderr, "testrun: interrupted")
		os.Exit(130)
	case err != nil:
		fmt.Fprintln(os.Stderr, "testrun: error:", err)
		os.Exit(1)
	case !good:
		os.Exit(1)
	}
}

// lineWriter writes the bytes of one Write call without others in between.
type lineWriter struct {
	mu  sync.Mutex
	out io.Writer
}

func (w *lineWriter) Write(text []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.out.Write(text)
}
