package driver

import (
	"context"

	"github.com/ublk-loop/ublk-loop/cmd/ublk-loop-csi/pool"
)

// recordID returns the id of the record of a volume. Kubernetes chooses the ids of ephemeral
// volumes itself.
func (d *Driver) recordID(id string) string {
	if pool.IsID(pool.Volumes, id) {
		return id
	}
	return pool.ID(pool.Volumes, d.opts.Node, "ephemeral\x00"+id)
}

// endEphemeral deletes a volume that lives as long as its pod.
func (d *Driver) endEphemeral(ctx context.Context, v *pool.Volume) error {
	if len(v.Publications) > 0 {
		return nil
	}
	if v.Stage != nil {
		if err := d.unstage(ctx, v); err != nil {
			return err
		}
	}
	return d.discard(v)
}
