package daemon

import (
	"context"
	"errors"
	"fmt"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/internal/hint"
)

// Pending is a device that is being made. It goes with this process, unless it is kept.
//
//	Start -> Ready -> Keep, or in between: Abandon
type Pending interface {
	// Ready waits until the device can be opened.
	Ready() (*client.Device, error)
	// Keep makes the device outlive this process.
	Keep() error
	// Abandon removes a device that was not kept, and waits until nothing of it is left.
	Abandon() error
}

// HintStartServe says what to do if there is no server of many devices.
const HintStartServe = "start ublk-loop serve, or the unit ublk-loop.socket"

// Start has a device served by the server of many devices, if there is one and it can,
// or else by a process of its own. The context ends, with a cause, when the user does not
// want the device any more.
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
