package driver

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/cmd/ublk-loop-csi/mounts"
	"github.com/ublk-loop/ublk-loop/cmd/ublk-loop-csi/pool"
	"github.com/ublk-loop/ublk-loop/transfer"
)

// keyPause is the time between two looks for devices that wait for their keys. Nothing reports that
// a server has taken over the devices of another.
const keyPause = time.Second

// keys are the keys of the encrypted volumes that are staged. Their memory is never in swap. A
// server that has taken over a device after a crash gets the key from here.
type keys struct {
	mu     sync.Mutex // protects of
	of     map[string]*transfer.Secret
	gained chan struct{} // has a value when a key has come
}

// put keeps a key, which it owns from then on.
func (k *keys) put(id string, key *transfer.Secret) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if old := k.of[id]; old != nil {
		old.Close()
	}
	k.of[id] = key
	select {
	case k.gained <- struct{}{}:
	default:
	}
}

// drop wipes the key of a volume.
func (k *keys) drop(id string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if key := k.of[id]; key != nil {
		key.Close()
	}
	delete(k.of, id)
}

func (k *keys) has(id string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.of[id] != nil
}

// open returns a descriptor from which the key of a volume can be read once, nil if there is none.
func (k *keys) open(id string) (*os.File, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.of[id] == nil {
		return nil, nil
	}
	return pipeOf(k.of[id])
}

func (k *keys) ids() (ids []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for id := range k.of {
		ids = append(ids, id)
	}
	return ids
}

// giveKeys gives devices their keys again, until the context is done.
func (d *Driver) giveKeys(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.keys.gained:
		}
		for len(d.keys.ids()) > 0 {
			select {
			case <-ctx.Done():
				return
			case <-time.After(keyPause):
			}
			d.giveAll(ctx)
		}
	}
}

// giveAll gives each device that waits for a key that the driver has this key.
func (d *Driver) giveAll(ctx context.Context) {
	list, err := d.devices.waiting(ctx)
	if err != nil || len(list) == 0 {
		return // without a server there is nothing to give
	}
	for _, id := range d.keys.ids() {
		v, err := d.pool.Volumes.Read(id)
		if err == nil {
			err = d.giveIn(ctx, list, v)
		}
		if err != nil && ctx.Err() == nil {
			d.opts.Report(fmt.Errorf("give the key of volume %s again: %w", id, err))
		}
	}
}

// giveIn gives the device of a volume its key, if the device is in a list.
func (d *Driver) giveIn(ctx context.Context, list []client.Device, v *pool.Volume) error {
	disk, err := d.pool.OpenDisk(v, unix.O_PATH)
	if err != nil {
		return err
	}
	defer func() { _ = disk.Close() }()
	for i := range list {
		if is, err := list[i].Uses(disk); err != nil {
			return err
		} else if is {
			return d.giveKey(ctx, v, &list[i])
		}
	}
	return nil
}

// giveKey gives a device its key. It does nothing if the driver has none, or if the device does not
// wait for it any longer.
func (d *Driver) giveKey(ctx context.Context, v *pool.Volume, device *client.Device) error {
	key, err := d.keys.open(v.ID)
	if key == nil || err != nil {
		return err
	}
	defer func() { _ = key.Close() }()
	err = d.devices.server.giveKey(ctx, device, key)
	if client.HasStatus(err, http.StatusNotFound) {
		return nil
	}
	return err
}

// awaken gives the device of an encrypted volume its key if it waits for it. I/O of a device that
// still waits for that or for a server would not end, and nothing interrupts an unmount, so awaken returns an
// error. Secrets are those of the call; with a passphrase the driver has the key from then on.
func (d *Driver) awaken(ctx context.Context, v *pool.Volume, secrets map[string]string) error {
	device, err := d.device(ctx, v)
	if device == nil || err != nil {
		return err
	}
	if device.State == unrecovered || device.State == quiesced {
		return status.Errorf(codes.Unavailable, "%s waits for ublk-loop serve to serve it again", device.Device)
	}
	if !v.Settings.Encrypted {
		return nil
	}
	if pass := secrets[passphraseSecret]; pass != "" && !d.keys.has(v.ID) {
		if err := d.learnKey(v, pass); err != nil {
			return err
		}
	}
	if device.State != waitsForKey {
		return nil
	}
	if !d.keys.has(v.ID) {
		return status.Errorf(codes.FailedPrecondition, "secrets: %s: %s waits for its key since ublk-loop serve was started again; stage or publish the volume with its secret, or use ublk-loop key", passphraseSecret, device.Device)
	}
	if err := d.giveKey(ctx, v, device); err != nil {
		return err
	}
	return d.resume(ctx, v)
}

// resume does for a device that is served again what Reconcile could not do without its key.
func (d *Driver) resume(ctx context.Context, v *pool.Volume) error {
	switch {
	case v.Stage == nil:
		return nil
	case !v.Stage.Block:
		t, err := mounts.Read()
		if err != nil || t.At(v.Stage.Path) == nil {
			return err
		}
		return d.thaw(ctx, v.Stage.Path)
	}
	device, err := d.device(ctx, v)
	if device == nil || err != nil {
		return err
	}
	return d.holdAgain(ctx, v, device)
}

// learnKey keeps the key of a volume.
func (d *Driver) learnKey(v *pool.Volume, pass string) error {
	key, _, err := d.unlock(v, pass)
	if err == nil {
		d.keys.put(v.ID, key)
	}
	return err
}

// close wipes all keys.
func (k *keys) close() {
	for _, id := range k.ids() {
		k.drop(id)
	}
}

// waiting returns the devices that wait for their keys.
func (s *devices) waiting(ctx context.Context) ([]client.Device, error) {
	list, err := s.unrecovered(ctx)
	var waiting []client.Device
	for _, device := range list {
		if device.State == waitsForKey {
			waiting = append(waiting, device)
		}
	}
	return waiting, err
}
