// Command ublk-loop-snapshotter gives containerd its snapshots as block devices.
// It is a module of its own, so that containerd's modules are none of
// ublk-loop's; "ublk-loop snapshotter" executes it.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"

	"golang.org/x/sys/unix"
)

func main() {
	unix.Umask(0o077) // nothing that is made is anybody else's
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer stop()
	if err := newCommand().ExecuteContext(ctx); err != nil {
		// Errors that were joined come as lines.
		fmt.Fprintf(os.Stderr, "ublk-loop: error: snapshotter: %s\n", strings.ReplaceAll(err.Error(), "\n", "; "))
		os.Exit(exitStatus(err))
	}
}

// exitStatus is that of ublk-loop: 1 for what failed, 2 for wrong usage.
func exitStatus(err error) int {
	if errors.Is(err, errUsage) {
		return 2
	}
	return 1
}
