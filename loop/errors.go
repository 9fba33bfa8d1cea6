package loop

import "errors"

var (
	// ErrForeign is returned for a ublk device that another program made.
	ErrForeign = errors.New("not a device of ublk-loop")
	// ErrServed is returned by Recover for a device that has a server.
	ErrServed = errors.New("the device is served, there is nothing to recover")
	// ErrInUse is returned by Detach for a device that somebody has open.
	ErrInUse = errors.New("device is in use")
)
