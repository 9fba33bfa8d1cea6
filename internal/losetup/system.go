package losetup

import (
	"context"
	"io"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/loop"
)

// System has the devices of ublk-loop.
type System interface {
	// List returns the devices. Without the driver there are none.
	List() ([]client.Device, error)
	// NextID returns the number of the next device.
	NextID() (uint32, error)
	// Attach makes a device of the file at a path, which can be opened when Attach returns.
	Attach(ctx context.Context, path string, cfg loop.Config) (*client.Device, error)
	// Detach removes a device. A device in use goes with its last user, if a server of many
	// devices serves it; otherwise Detach returns an error that wraps EBUSY. If the context ends,
	// Detach and Resize return its cause unless they are done soon.
	Detach(ctx context.Context, d *client.Device) error
	// Keep makes a device stay that would go with its last user.
	Keep(ctx context.Context, d *client.Device) error
	// Resize gives a device the size of its file.
	Resize(ctx context.Context, d *client.Device) error
	// Hint returns what a user can do about an error, or an empty text.
	Hint(err error) string
}

// Command is the command losetup.
type Command struct {
	// Name begins messages: the name of the program.
	Name    string
	Version string
	Out     io.Writer
	Err     io.Writer
	System  System
}
