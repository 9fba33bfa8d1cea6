package loop

import (
	"errors"

	"github.com/ublk-loop/ublk-loop/internal/hint"
)

var (
	// ErrForeign is returned for a ublk device of another program.
	ErrForeign = errors.New("not a device of ublk-loop")
	// ErrServed is returned by Recover if the device has a server.
	ErrServed = errors.New("the device is served, there is nothing to recover")
	// ErrInUse is returned by Detach if the device is open.
	ErrInUse = errors.New("device is in use")
)

// HintError is an error with a hint. The hint has fields of Config in braces, in lower
// case: {read_only}, {direct_io=auto}.
type HintError = hint.Error
