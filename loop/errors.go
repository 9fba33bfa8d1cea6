package loop

import "errors"

var (
	// ErrForeign is returned for a ublk device that another program made.
	ErrForeign = errors.New("not a device of ublk-loop")
	// ErrInUse is returned by Detach for a device that somebody has open.
	ErrInUse = errors.New("device is in use")
)
