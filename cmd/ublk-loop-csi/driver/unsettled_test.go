package driver

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	csi "github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ublk-loop/ublk-loop/cmd/ublk-loop-csi/pool"
	"github.com/ublk-loop/ublk-loop/internal/control/controltest"
	"github.com/ublk-loop/ublk-loop/loop"
)

// A stage that fails is undone, also if the server no longer answers: in limited time, and with an error after
// which Kubernetes unstages the volume.
func TestUndoWithSilentServer(t *testing.T) {
	node := filepath.Join(t.TempDir(), "node")
	devices := controltest.NewDevices(node)
	t.Cleanup(devices.Wait)
	var silent atomic.Bool
	d := newDriverOf(t, devices, impatient, func(d *Driver) {
		d.opts.Step = func(name string) {
			if name == "stage: attached" {
				silent.Store(true)
			}
		}
	})
	v := &pool.Volume{
		ID: pool.ID(pool.Volumes, "n", "v"), State: pool.Ready, Size: 1 << 20, FSType: "ext4", FS: pool.Formatted,
		Settings: pool.Settings{Ephemeral: true}, // it has no layers
	}
	if err := errors.Join(os.WriteFile(node, make([]byte, v.Size), 0o600), d.pool.Volumes.Create(v.ID, v.Size, false), d.pool.Volumes.Write(v.ID, v)); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "stage")
	check := func(what string, err error, code codes.Code, staged bool) {
		t.Helper()
		now, e := d.pool.Volumes.Read(v.ID)
		if e != nil {
			t.Fatal(e)
		}
		if status.Code(err) != code || (now.Stage != nil) != staged || !staged && len(devices.Devices()) > 0 {
			t.Errorf("%s: error %v, want %s; record %+v, devices %+v", what, err, code, now, devices.Devices())
		}
	}
	stage := func() error {
		_, err := d.NodeStageVolume(t.Context(), &csi.NodeStageVolumeRequest{
			VolumeId: v.ID, StagingTargetPath: path, VolumeCapability: &csi.VolumeCapability{
				AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
				AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{FsType: "xfs"}},
			},
		})
		return err
	}
	check("another file system", stage(), codes.InvalidArgument, false)

	goOn := make(chan struct{})
	devices.OnLook(func(int) {
		if silent.Load() {
			<-goOn
		}
	})
	err := stage()
	silent.Store(false)
	close(goOn)
	check("without an answer", err, codes.Unavailable, true)
	_, err = d.NodeUnstageVolume(t.Context(), &csi.NodeUnstageVolumeRequest{VolumeId: v.ID, StagingTargetPath: path})
	check("unstage", err, codes.OK, false)
}

// An ephemeral volume whose end has failed can be published again. Its record then has the publication, without
// which the volume could not be unpublished.
func TestEphemeralAfterFailedEnd(t *testing.T) {
	d := newDriver(t)
	v := &pool.Volume{ID: pool.ID(pool.Volumes, "n", "v"), State: pool.Ready, Stage: &pool.Stage{Path: "/target"}, Settings: pool.Settings{Ephemeral: true}}
	for target, want := range map[string]int{"/target": 1, "/other": 0} {
		v.Publications = nil
		_ = d.mountEphemeral(t.Context(), v, &pool.Publication{Target: target}) // there is no image
		if len(v.Publications) != want || v.Stage.Path != "/target" {
			t.Errorf("%s: %+v", target, v)
		}
	}
}

// A device that does not answer is not waited for longer than the caller does.
func TestFlushOfSilentDevice(t *testing.T) {
	path := filepath.Join(t.TempDir(), "device")
	if err := unix.Mkfifo(path, 0o600); err != nil { // its open waits for a writer
		t.Fatal(err)
	}
	ctx, giveUp := context.WithCancel(t.Context())
	giveUp()
	if err := flush(ctx, path); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	writer, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_ = writer.Close()
}

// impatient waits for the answers of a server no longer than a test can.
func impatient(d *Driver) { d.devices.server.look = 2 * time.Second }

// A server that stops to answer while the pool is reconciled ends that, and the next call begins again.
func TestReconcileWithSilentServer(t *testing.T) {
	u := newInUse(t, impatient)
	v, err := u.driver.pool.Volumes.Read(u.id)
	if err == nil {
		err = u.driver.makeNext(v, v.Top) // as a driver that was killed before the fork
	}
	if err != nil {
		t.Fatal(err)
	}
	u.devices.OnFork(func(_ uint32, store *os.File) (loop.Status, error) { return u.fork(store) })
	goOn := make(chan struct{})
	var looks atomic.Int32
	u.devices.OnLook(func(int) {
		if looks.Add(1) > 1 {
			<-goOn
		}
	})
	u.forget()
	if err := u.driver.Reconcile(t.Context()); !errors.Is(err, errSilent) {
		t.Errorf("error %v, want %v", err, errSilent)
	}
	close(goOn)
	if err := u.driver.Reconcile(t.Context()); err != nil {
		t.Error(err)
	}
	u.checkFiles()
}

// What cannot be removed from the pool keeps no other volume from being used.
func TestReconcileWithStuckObjects(t *testing.T) {
	var mu sync.Mutex // protects reports
	var reports []error
	devices := controltest.NewDevices(filepath.Join(t.TempDir(), "node"))
	t.Cleanup(devices.Wait)
	d := newDriverOf(t, devices, func(d *Driver) {
		d.opts.Report = func(err error) {
			mu.Lock()
			defer mu.Unlock()
			reports = append(reports, err)
		}
	})
	good := &pool.Volume{ID: pool.ID(pool.Volumes, "n", "good"), State: pool.Ready, Size: 4096}
	v := &pool.Volume{ID: pool.ID(pool.Volumes, "n", "stuck"), State: pool.Making}
	s := &pool.Snapshot{ID: pool.ID(pool.Snapshots, "n", "stuck"), State: pool.Deleting}
	l := &pool.Layer{ID: pool.NewLayerID("n"), State: pool.Ready}
	p := d.pool
	stuck := map[string]string{v.ID: p.Volumes.ImagePath(v.ID), s.ID: p.Snapshots.ImagePath(s.ID), l.ID: p.Layers.ImagePath(l.ID)}
	for _, path := range stuck { // which is not removed while it has something in it
		if err := os.MkdirAll(filepath.Join(path, "x"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(
		p.Volumes.Create(good.ID, good.Size, false), p.Volumes.Write(good.ID, good), p.Volumes.Write(v.ID, v), p.Snapshots.Write(s.ID, s), p.Layers.Write(l.ID, l),
	); err != nil {
		t.Fatal(err)
	}
	d.mu.Lock()
	d.reconciled = false // as in a new driver
	d.mu.Unlock()
	if err := d.Reconcile(t.Context()); err != nil {
		t.Errorf("error %v", err)
	}
	mu.Lock()
	for id, path := range stuck {
		if !strings.Contains(errors.Join(reports...).Error(), id) {
			t.Errorf("%s is not reported: %v", id, reports)
		}
		if id == s.ID {
			if err := os.RemoveAll(path); err != nil {
				t.Fatal(err)
			}
		}
	}
	mu.Unlock()
	if err := d.makeLayer(good); err != nil {
		t.Fatal(err)
	}
	if err := d.conclude(t.Context(), good); err != nil || good.Top == "" {
		t.Errorf("another volume has the layer %q, error %v", good.Top, err)
	}
	if _, err := d.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: good.ID}); err != nil {
		t.Errorf("delete another volume: %v", err)
	}
	if _, err := d.DeleteSnapshot(t.Context(), &csi.DeleteSnapshotRequest{SnapshotId: s.ID}); err != nil {
		t.Errorf("delete the snapshot again: %v", err)
	}
}
