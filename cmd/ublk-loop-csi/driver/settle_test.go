package driver

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	csi "github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/cmd/ublk-loop-csi/pool"
	"github.com/ublk-loop/ublk-loop/internal/control/controltest"
	"github.com/ublk-loop/ublk-loop/loop"
)

// inUse is a block volume with layers, whose device a fake server has.
type inUse struct {
	*testing.T
	devices *controltest.Devices
	driver  *Driver
	id      string

	mu     sync.Mutex // held while the device forks
	device loop.Status
}

func newInUse(t *testing.T, changes ...func(*Driver)) *inUse {
	t.Helper()
	node := filepath.Join(t.TempDir(), "node")
	u := &inUse{T: t, devices: controltest.NewDevices(node)}
	t.Cleanup(u.devices.Wait)
	u.driver = newDriverOf(t, u.devices, changes...)
	p, layer, store := u.driver.pool, pool.NewLayerID("n"), pool.NewLayerID("n")
	v := &pool.Volume{
		ID: pool.ID(pool.Volumes, "n", "v"), State: pool.Ready, Size: 1 << 20, Top: store, Settings: pool.Settings{Layered: true},
		Stage: &pool.Stage{Path: "/stage", Block: true},
	}
	u.id = v.ID
	if err := errors.Join(
		os.WriteFile(node, nil, 0o600), p.MakeImageLayer(layer, v.Size, false), p.MakeStore(store, layer, false), p.Volumes.Write(v.ID, v),
		u.keep("image", layer), u.keep("store", store),
	); err != nil {
		t.Fatal(err)
	}
	u.device = loop.Status{Device: node, State: live, Table: "0 2048 linear /layer 0"}
	u.device.Files = append(u.device.Files, u.fileOf(p.Layers.ImagePath(layer)), u.fileOf(p.Layers.ImagePath(store)))
	u.devices.Become(0, new(u.device))
	return u
}

// keep makes a snapshot that shows a layer, so that this is not merged.
func (u *inUse) keep(name, layer string) error {
	s := &pool.Snapshot{ID: pool.ID(pool.Snapshots, "n", name), State: pool.Ready, Layer: layer}
	return u.driver.pool.Snapshots.Write(s.ID, s)
}

// fileOf describes a file below tables.
func (u *inUse) fileOf(path string) loop.StatusFile {
	u.Helper()
	f, err := os.Open(path)
	if err != nil {
		u.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	s := statusOf(u.T, f, "")
	return loop.StatusFile{File: path, Device: s.FileDevice, Inode: s.FileInode}
}

// fork makes the device go on over a store, unless it has it already.
func (u *inUse) fork(store *os.File) (loop.Status, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	s := statusOf(u.T, store, "")
	file := loop.StatusFile{File: store.Name(), Device: s.FileDevice, Inode: s.FileInode}
	if slices.Contains(u.device.Files, file) {
		return loop.Status{}, unix.EINVAL
	}
	u.device.Files = append(slices.Clone(u.device.Files), file)
	u.devices.Become(0, new(u.device))
	return u.device, nil
}

// snap makes a snapshot of the volume.
func (u *inUse) snap(ctx context.Context, name string) error {
	_, err := u.driver.CreateSnapshot(ctx, &csi.CreateSnapshotRequest{Name: name, SourceVolumeId: u.id})
	return err
}

// forget makes the driver reconcile its pool again, as a new one does.
func (u *inUse) forget() {
	u.driver.mu.Lock()
	defer u.driver.mu.Unlock()
	u.driver.reconciled = false
}

// checkFiles checks that the records lead to the files of the device, and that these are there.
func (u *inUse) checkFiles() {
	u.Helper()
	v, err := u.driver.pool.Volumes.Read(u.id)
	if err != nil {
		u.Fatal(err)
	}
	chain, err := u.driver.pool.Chain(v.Top)
	if err != nil {
		u.Fatal(err)
	}
	var files []loop.StatusFile
	for _, l := range chain {
		files = append(files, u.fileOf(u.driver.pool.Layers.ImagePath(l.ID)))
	}
	if v.Next != "" || v.Stage == nil || !slices.Equal(files, u.device.Files) {
		u.Errorf("volume %+v with the files %+v, the device has %+v", v, files, u.device.Files)
	}
}

// The server carries out a fork although the caller has given up, or the driver has ended. The store that the
// device then writes to stays, and belongs to the volume.
func TestForkAfterCallerGaveUp(t *testing.T) {
	for _, restart := range []bool{false, true} {
		u := newInUse(t)
		asked, goOn, done := make(chan struct{}), make(chan struct{}), make(chan struct{})
		var first sync.Once
		u.devices.OnFork(func(_ uint32, store *os.File) (s loop.Status, err error) {
			late := false
			first.Do(func() { late = true })
			if !late {
				return u.fork(store)
			}
			close(asked)
			<-goOn
			s, err = u.fork(store)
			close(done)
			return s, err
		})
		ctx, giveUp := context.WithCancel(t.Context())
		go func() { // the call below waits for it
			<-asked
			giveUp()
		}()
		if err := u.snap(ctx, "a"); err == nil {
			t.Fatal("a snapshot without an answer of the server")
		}
		if restart {
			u.forget()
			if err := u.driver.Reconcile(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		close(goOn)
		<-done
		if err := u.snap(t.Context(), "b"); err != nil {
			t.Error(err)
		}
		u.checkFiles()
	}
}

// A volume whose device cannot fork keeps its layer, and has no store that is left over.
func TestForkRefused(t *testing.T) {
	u := newInUse(t)
	u.devices.OnFork(func(uint32, *os.File) (loop.Status, error) { return loop.Status{}, unix.ENOMEM })
	if err := u.snap(t.Context(), "a"); err == nil {
		t.Error("a snapshot although the device cannot fork")
	}
	u.checkFiles()
	if layers, err := u.driver.pool.Layers.IDs(); len(layers) != 2 || err != nil {
		t.Errorf("layers %q, error %v", layers, err)
	}
}
