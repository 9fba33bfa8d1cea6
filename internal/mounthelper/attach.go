package mounthelper

import (
	"context"
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/internal/keysource"
	"github.com/ublk-loop/ublk-loop/internal/wire"
	"github.com/ublk-loop/ublk-loop/transfer"
)

// attach attaches an image with a lease, mounts it, and drops the lease. The server then
// removes the device when it is neither mounted nor open. If this process or the server
// dies on the way, no device is left.
func (h *Helper) attach(ctx context.Context, r *request, file *os.File) error {
	held, err := h.ask(ctx, r, file)
	if !r.config.ReadOnly && (errors.Is(err, unix.EROFS) || errors.Is(err, unix.EACCES)) {
		r = r.readOnly()
		if held, err = h.ask(ctx, r, file); err == nil {
			h.noteReadOnly(r.image)
		}
	}
	if errors.Is(err, client.ErrNoServer) {
		return &hint.Error{Err: err, Hint: h.NoServer}
	}
	if err != nil {
		return err
	}
	defer held.Close()
	return mountDevice(ctx, r, held.Device.Device, os.Stderr)
}

// ask asks the server for a device of the image. The key is read each time, because the
// server reads its descriptor to the end.
func (h *Helper) ask(ctx context.Context, r *request, file *os.File) (*client.Held, error) {
	cfg := r.config
	var key *os.File
	var warnings []string
	var err error
	switch {
	case r.luks:
		key, warnings, err = keysource.Pipe(ctx, func(ctx context.Context) (*transfer.Secret, []string, error) { return r.key.Unlock(ctx, file, &cfg) })
	case cfg.Transfer.Name != "":
		key, warnings, err = keysource.Pipe(ctx, r.key.Key)
	}
	if err != nil {
		return nil, err
	}
	if key != nil {
		defer func() { _ = key.Close() }()
	}
	for _, w := range warnings {
		h.note(r.image, w)
	}
	return h.Client.Attach(ctx, client.AddRequest{File: file.Name(), Config: wire.RequestConfig(&cfg)}, client.Files{File: file, Key: key})
}
