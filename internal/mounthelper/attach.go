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
	"github.com/ublk-loop/ublk-loop/loop"
	"github.com/ublk-loop/ublk-loop/transfer"
)

// attach attaches an image with a lease, mounts it, and drops the lease. The server then
// removes the device when it is neither mounted nor open. If this process or the server
// dies on the way, no device is left.
func (h *Helper) attach(ctx context.Context, r *request, file *os.File) error {
	held, r, err := h.lease(ctx, r, file)
	if errors.Is(err, client.ErrNoServer) {
		return &hint.Error{Err: err, Hint: h.NoServer}
	}
	if err != nil {
		return err
	}
	defer held.Close()
	h.noteLoopDevice(r, file)
	return mountDevice(ctx, r, held.Device.Device, os.Stderr)
}

// lease attaches an image with a lease, read-only if it cannot be written to. It returns the
// request for the mount of the device.
func (h *Helper) lease(ctx context.Context, r *request, file *os.File) (*client.Held, *request, error) {
	cfg, key, err := h.readKey(ctx, r, file)
	if err != nil {
		return nil, nil, err
	}
	if key != nil {
		defer key.Close()
	}
	held, err := h.ask(ctx, cfg, file, key)
	if !cfg.ReadOnly && (errors.Is(err, unix.EROFS) || errors.Is(err, unix.EACCES)) {
		r, cfg.ReadOnly = r.readOnly(), true
		if held, err = h.ask(ctx, cfg, file, key); err == nil {
			h.noteReadOnly(r.image)
		}
	}
	return held, r, err
}

// readKey reads the key of the image, which is nil without one. The configuration has what a LUKS
// header says. A key can only be read once: from a pipe, or from the user of a terminal.
func (h *Helper) readKey(ctx context.Context, r *request, file *os.File) (*loop.Config, *transfer.Secret, error) {
	cfg := r.config
	var read keysource.Reader
	switch {
	case r.luks:
		read = func(ctx context.Context) (*transfer.Secret, []string, error) { return r.key.Unlock(ctx, file, &cfg) }
	case cfg.Transfer.Name != "":
		read = r.key.Key
	default:
		return &cfg, nil, nil
	}
	key, warnings, err := keysource.Load(ctx, read)
	for _, w := range warnings {
		h.note(r.image, w)
	}
	return &cfg, key, err
}

// ask asks the server for a device of the image.
func (h *Helper) ask(ctx context.Context, cfg *loop.Config, file *os.File, key *transfer.Secret) (*client.Held, error) {
	files := client.Files{File: file}
	if key != nil {
		var err error
		if files.Key, err = keysource.PipeOf(key); err != nil {
			return nil, err
		}
		defer func() { _ = files.Key.Close() }()
	}
	return h.Client.Attach(ctx, client.AddRequest{File: file.Name(), Config: wire.RequestConfig(cfg)}, files)
}
