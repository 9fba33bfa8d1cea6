package driver

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	csi "github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/cmd/ublk-loop-csi/pool"
	"github.com/ublk-loop/ublk-loop/internal/control/controltest"
)

// newDriver returns a driver with an empty pool and a server without devices.
func newDriver(t *testing.T) *Driver {
	t.Helper()
	devices := controltest.NewDevices(filepath.Join(t.TempDir(), "node"))
	t.Cleanup(devices.Wait)
	return newDriverOf(t, devices)
}

// newDriverOf returns a driver with an empty pool and a server of devices. Its goroutines start after the changes.
func newDriverOf(t *testing.T, devices *controltest.Devices, changes ...func(*Driver)) *Driver {
	t.Helper()
	p, err := pool.Open(filepath.Join(t.TempDir(), "pool"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	socket := filepath.Join(t.TempDir(), "socket")
	controltest.Serve(t, devices, socket)
	d, err := newIdle(p, Options{Node: "n", Overcommit: 1, Socket: socket})
	if err != nil {
		t.Fatal(err)
	}
	for _, change := range changes {
		change(d)
	}
	d.start()
	t.Cleanup(d.Close)
	if err := d.Reconcile(t.Context()); err != nil {
		t.Fatal(err)
	}
	return d
}

// A caller that gives up does not end a copy or a new file system: a repeated call would begin again.
func TestLastingWork(t *testing.T) {
	d := newDriver(t)
	const size = 1 << 20
	gone, giveUp := context.WithCancel(t.Context())
	giveUp()

	image := &pool.Snapshot{ID: pool.ID(pool.Snapshots, "n", "image"), State: pool.Ready, Size: size}
	layer, store := pool.NewLayerID("n"), pool.NewLayerID("n")
	layers := &pool.Snapshot{ID: pool.ID(pool.Snapshots, "n", "layers"), State: pool.Ready, Size: size, Layer: store}
	if err := errors.Join(
		os.WriteFile(d.pool.Snapshots.ImagePath(image.ID), bytes.Repeat([]byte("data"), size/4), 0o600), d.pool.Snapshots.Write(image.ID, image),
		d.pool.MakeImageLayer(layer, size, false), os.WriteFile(d.pool.Layers.ImagePath(layer), bytes.Repeat([]byte("data"), size/4), 0o600),
		d.pool.MakeStore(store, layer, false), d.pool.Snapshots.Write(layers.ID, layers),
	); err != nil {
		t.Fatal(err)
	}
	for _, s := range []*pool.Snapshot{image, layers} {
		_, err := d.CreateVolume(gone, &csi.CreateVolumeRequest{
			Name: s.ID, CapacityRange: &csi.CapacityRange{RequiredBytes: 2 * size},
			VolumeCapabilities: []*csi.VolumeCapability{{
				AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
				AccessType: &csi.VolumeCapability_Block{Block: &csi.VolumeCapability_BlockVolume{}},
			}},
			VolumeContentSource: &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Snapshot{
				Snapshot: &csi.VolumeContentSource_SnapshotSource{SnapshotId: s.ID},
			}},
		})
		v, e := d.pool.Volumes.Read(pool.ID(pool.Volumes, "n", s.ID))
		if e != nil || v.State != pool.Ready {
			t.Errorf("volume %+v, errors %v, %v", v, err, e)
		}
	}

	v := &pool.Volume{ID: pool.ID(pool.Volumes, "n", "v"), State: pool.Ready, Size: size, Top: store, Stage: &pool.Stage{}}
	if err := d.flatten(gone, v); err != nil || v.Top == store {
		t.Errorf("volume %+v, error %v", v, err)
	}

	tools := t.TempDir()
	if err := os.WriteFile(filepath.Join(tools, "mkfs.ext4"), []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", tools+":"+os.Getenv("PATH"))
	v.FS = pool.Formatting
	if err := d.format(gone, v, &client.Held{}); err != nil || v.FS != pool.Formatted {
		t.Errorf("file system %+v, error %v", v, err)
	}
}

// The end of the driver ends such work.
func TestLastingWorkEnds(t *testing.T) {
	d := newDriver(t)
	ctx, end := d.lasting(t.Context())
	defer end()
	d.Stop()
	<-ctx.Done()
}
