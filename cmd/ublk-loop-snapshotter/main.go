// Command ublk-loop-snapshotter gives containerd its snapshots as block devices. It is a
// separate module, so that ublk-loop does not depend on containerd's modules. "ublk-loop
// snapshotter" executes it.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/rawname"
)

func main() {
	unix.Umask(0o077) // all files are accessible to this user only
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer stop()
	if err := newCommand().ExecuteContext(ctx); err != nil {
		// a newline that is left belongs to a name
		fmt.Fprintf(os.Stderr, "ublk-loop: error: snapshotter: %s\n", strings.ReplaceAll(rawname.Error(err), "\n", `\n`))
		os.Exit(exitStatus(err))
	}
}

// exitStatus returns the exit status of ublk-loop: 2 for wrong usage, 1 for other errors.
func exitStatus(err error) int {
	if errors.Is(err, errUsage) {
		return 2
	}
	return 1
}
