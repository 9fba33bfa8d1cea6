package main

import (
	"context"
	"os/signal"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/report"
)

// interruptible returns a context that ends at the first SIGINT or SIGTERM, with the
// cause report.ErrInterrupted. An interrupted add then removes its device
// (daemon.Pending.Abandon). A second signal ends the process at once.
func interruptible(parent context.Context) (ctx context.Context, stop func()) {
	signaled, ignore := signal.NotifyContext(parent, unix.SIGINT, unix.SIGTERM)
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(parent))
	context.AfterFunc(signaled, func() {
		ignore()
		cancel(report.ErrInterrupted)
	})
	return ctx, ignore
}
