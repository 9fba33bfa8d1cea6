package loop

import (
	"errors"

	"github.com/ublk-loop/ublk-loop/internal/hint"
)

var (
	// ErrForeign is returned for a ublk device that another program made.
	ErrForeign = errors.New("not a device of ublk-loop")
	// ErrServed is returned by Recover for a device that has a server.
	ErrServed = errors.New("the device is served, there is nothing to recover")
	// ErrInUse is returned by Detach for a device that somebody has open.
	ErrInUse = errors.New("device is in use")
)

// HintError is an error that its reader can do something about. Its hint names fields
// of Config in braces, in lower case: {read_only}, {direct_io=auto}.
type HintError = hint.Error
