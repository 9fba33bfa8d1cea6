package daemon

import (
	"context"
	"errors"
	"fmt"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/internal/hint"
)

// Pending is a device in the making. Unless it is kept, it is removed when this process
// ends.
//
//	Start -> Ready -> Keep, or in between: Abandon
type Pending interface {
	// Ready waits until the device can be opened.
	Ready() (*client.Device, error)
	// Keep makes the device outlive this process.
	Keep() error
	// Abandon removes a device that was not kept, and waits until it is completely gone.
	Abandon() error
}

// HintStartServe is the hint if no server of many devices runs.
const HintStartServe = "start ublk-loop serve, or the unit ublk-loop.socket"

// Start asks the server of many devices for the device. If no such server runs, or it
// cannot serve the device, Start starts a process for it. The context ends, with a cause,
// when the user interrupts.
func Start(ctx context.Context, j *Job) (Pending, error) {
	if j.Standalone || j.Recover != nil || j.Log != nil {
		return startInBackground(ctx, j)
	}
	pending, err := startLeased(ctx, j, client.New(client.DefaultSocket))
	switch {
	case !errors.Is(err, client.ErrNoServer):
		return pending, err
	case j.Autoclear > 0:
		return nil, &hint.Error{Err: fmt.Errorf("autoclear: %w", err), Hint: HintStartServe}
	}
	return startInBackground(ctx, j)
}
