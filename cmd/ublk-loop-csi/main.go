// Command ublk-loop-csi gives the pods of Kubernetes local volumes that are files on their
// node. It is a separate module, so that ublk-loop does not depend on Kubernetes' modules.
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
	unix.Umask(0o077) // the files of the pool are accessible to this user only
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer stop()
	if err := newCommand().ExecuteContext(ctx); err != nil {
		// a newline that is left belongs to a name
		fmt.Fprintf(os.Stderr, "ublk-loop-csi: error: %s\n", strings.ReplaceAll(rawname.Error(err), "\n", `\n`))
		os.Exit(exitStatus(err))
	}
}

// exitStatus returns 2 for wrong usage, and 1 for other errors.
func exitStatus(err error) int {
	if errors.Is(err, errUsage) {
		return 2
	}
	return 1
}
