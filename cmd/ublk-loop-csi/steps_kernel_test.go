package main

import (
	"bytes"
	"embed"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	csi "github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// sources has the names of the steps of calls.
//
//go:embed driver
var sources embed.FS

// stepNames returns the names of all steps of calls.
func stepNames(t *testing.T) (names []string) {
	t.Helper()
	files, err := sources.ReadDir("driver")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		text, err := sources.ReadFile("driver/" + f.Name())
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`opts\.Step\("(.*)"\)`).FindAllSubmatch(text, -1) {
			names = append(names, string(m[1]))
		}
	}
	return names
}

// stepped is a life of volumes in which the driver ends at each step of its calls.
type stepped struct {
	*bed
	args    []string
	steps   string   // file with the names of the steps
	node    bool     // the node ends too
	disk    *cutDisk // loses its power with the node, if it is not nil
	access  *csi.VolumeCapability
	secrets map[string]string
	inUse   []*volume
}

// Wherever a call of the driver ends, and the node with it, the repeated call succeeds, no data is
// lost, and nothing is left at the end.
func TestKernelEveryStep(t *testing.T) {
	b := newBed(t, ublktest.OldestAndNewest, ublktest.ScratchDisk, ublktest.Long)
	var seen []byte
	layersPool := b.pool
	s := &stepped{bed: b, args: []string{"--overcommit", "8"}, steps: filepath.Join(b.dir, "steps")}
	t.Setenv(stepsFile, s.steps)
	b.poolOnXFS()
	disk := b.pool
	for _, tt := range []struct {
		pool   string
		node   bool
		access *csi.VolumeCapability
		change []func(*csi.CreateVolumeRequest)
	}{
		{disk, false, mountAccess("ext4", oneWriter), nil},
		{disk, true, blockAccess(oneWriter), nil},
		{layersPool, false, mountAccess("ext4", oneWriter), []func(*csi.CreateVolumeRequest){layered}},
		{layersPool, true, mountAccess("ext4", oneWriter), []func(*csi.CreateVolumeRequest){layered}},
		{layersPool, false, mountAccess("ext4", oneWriter), nil},
	} {
		b.pool, s.node, s.access = tt.pool, tt.node, tt.access
		s.live(tt.change...)
		known, err := os.ReadFile(s.steps)
		b.ok("steps", err)
		t.Logf("the driver ended %d times", bytes.Count(known, []byte("\n")))
		seen = append(seen, known...)
		b.ok("forget the steps", os.Remove(s.steps))
	}
	for _, name := range stepNames(t) {
		if !bytes.Contains(seen, []byte(name+"\n")) {
			t.Errorf("the driver did not end at the step %q", name)
		}
	}
}

// The same holds for encrypted volumes whose layers are below the encryption.
func TestKernelEveryStepEncrypted(t *testing.T) {
	b := newBed(t, ublktest.Once, ublktest.Long)
	s := &stepped{bed: b, args: []string{"--overcommit", "8"}, steps: filepath.Join(b.dir, "steps"), access: mountAccess("ext4", oneWriter)}
	s.secrets = map[string]string{"passphrase": "correct horse"}
	t.Setenv(stepsFile, s.steps)
	s.live(encrypted) // on tmpfs
	seen, err := os.ReadFile(s.steps)
	b.ok("steps", err)
	for _, name := range []string{"adopt: recorded", "divide: forked", "merge: devices reloaded", "flatten: copied"} {
		if !bytes.Contains(seen, []byte(name+"\n")) {
			t.Errorf("the driver did not end at the step %q", name)
		}
	}
}

// live starts the driver, makes each call, and ends the driver.
func (s *stepped) live(change ...func(*csi.CreateVolumeRequest)) {
	s.Helper()
	s.launch(s.args...)
	s.ready()
	first, second := content(1, mib), content(2, mib)
	v := s.make("lives", 16*mib, change...)
	s.use(v)
	s.put(v.file("a"), first)
	if len(change) > 0 {
		s.merge(v, change...)
		s.put(v.file("a"), first)
	}
	snapshot := s.snap(v, "s")
	s.put(v.file("a"), second)
	s.expand(v)
	s.has(v.file("a"), second)
	clone := s.make("clone", 32*mib, append(change, fromVolume(v.id))...)
	restored := s.make("restored", 16*mib, append(change, fromSnapshot(snapshot))...)
	s.use(restored)
	s.has(restored.file("a"), first)
	s.leave(v)
	s.use(clone)
	s.has(clone.file("a"), second)
	s.call("delete snapshot", func() error {
		_, err := s.controller.DeleteSnapshot(s.Context(), &csi.DeleteSnapshotRequest{SnapshotId: snapshot})
		return err
	})
	s.use(v) // it may have grown since
	s.has(v.file("a"), second)
	for _, v := range []*volume{v, clone, restored} {
		s.leave(v)
		s.call("delete", v.tryDelete)
	}
	s.isClean()
	s.driver.end(unix.SIGTERM)
}

// call repeats a call until the driver answers it. Each time, it starts the driver again, and the
// node with it.
func (s *stepped) call(what string, f func() error) {
	s.Helper()
	s.ok(what, s.try(f))
}

func (s *stepped) try(f func() error) error {
	s.Helper()
	for {
		err := f()
		if status.Code(err) != codes.Unavailable || s.lives() {
			return err
		}
		s.revive()
	}
}

// lives reports whether the driver answers a call that needs nothing.
func (s *stepped) lives() bool {
	_, err := s.identity.GetPluginInfo(s.Context(), &csi.GetPluginInfoRequest{})
	return err == nil
}

// revive starts the driver again when it has ended, and the node with it.
func (s *stepped) revive() {
	s.Helper()
	<-s.driver.done
	if s.node && s.disk == nil {
		s.killNode(s.inUse)
	}
	s.cut()
	s.launch(s.args...)
	s.ready()
	if s.node {
		used := s.inUse
		s.inUse = nil
		for _, v := range used {
			s.use(v)
		}
	}
}

// cut cuts the power of the node, if it has a disk for that.
func (s *stepped) cut() {
	s.Helper()
	if s.disk != nil {
		s.disk.cut(s.inUse)
	}
}

// merge makes snapshots of a volume in use, and deletes some. It waits until the volume has only the
// layers that are needed. Each snapshot has its data.
func (s *stepped) merge(v *volume, change ...func(*csi.CreateVolumeRequest)) {
	s.Helper()
	var ids []string
	for i := range 5 {
		s.put(v.file("a"), content(uint64(10+i), mib))
		ids = append(ids, s.snap(v, fmt.Sprint("merge", i)))
	}
	for _, d := range []struct{ snapshot, rest int }{{2, 5}, {3, 4}, {0, 3}, {1, 2}, {4, 2}} {
		s.call("delete snapshot", func() error {
			_, err := s.controller.DeleteSnapshot(s.Context(), &csi.DeleteSnapshotRequest{SnapshotId: ids[d.snapshot]})
			return err
		})
		s.until("layers are merged", func() bool {
			select {
			case <-s.driver.done:
				s.revive()
			default:
			}
			return s.layerFiles() <= d.rest
		}, func() string { return fmt.Sprintf("%d files, want %d", s.layerFiles(), d.rest) })
		if d.snapshot != 0 {
			continue
		}
		restored := s.make("merged", 16*mib, append(change, fromSnapshot(ids[1]))...)
		s.use(restored)
		s.has(restored.file("a"), content(11, mib))
		s.leave(restored)
		s.call("delete", restored.tryDelete)
	}
}

// ready waits until the driver is ready, and starts it again if it has ended at a step.
func (s *stepped) ready() {
	s.Helper()
	for !s.isReady() {
		s.cut()
		s.launch(s.args...)
	}
}

func (s *stepped) make(name string, size int64, change ...func(*csi.CreateVolumeRequest)) *volume {
	s.Helper()
	v := &volume{b: s.bed, name: name, access: s.access, secrets: s.secrets}
	s.call("create", func() error {
		reply, err := s.controller.CreateVolume(s.Context(), creation(name, size, s.access, change...))
		v.id = reply.GetVolume().GetVolumeId()
		return err
	})
	return v
}

func (s *stepped) use(v *volume) {
	s.Helper()
	s.call("stage", v.tryStage)
	s.call("publish", func() error {
		err := v.tryPublish("a", false, v.access)
		if code := status.Code(err); s.node && (code == codes.FailedPrecondition || code == codes.Unavailable) {
			s.call("stage", v.tryStage) // the node has ended since
			err = v.tryPublish("a", false, v.access)
		}
		return err
	})
	s.inUse = append(s.inUse, v)
}

func (s *stepped) leave(v *volume) {
	s.Helper()
	s.inUse = slices.DeleteFunc(s.inUse, func(u *volume) bool { return u == v })
	s.call("unpublish", func() error { return v.tryUnpublish("a") })
	s.call("unstage", v.tryUnstage)
}

func (s *stepped) snap(v *volume, name string) (id string) {
	s.Helper()
	s.call("snapshot", func() error {
		reply, err := v.trySnapshot(name)
		id = reply.GetSnapshot().GetSnapshotId()
		return err
	})
	return id
}

// expand grows a volume, or asks for that where it grows later.
func (s *stepped) expand(v *volume) {
	s.Helper()
	err := s.try(func() error { return v.grow("a", 32*mib) })
	if err != nil && status.Code(err) != codes.FailedPrecondition {
		s.Fatalf("grow: %v", err)
	}
}
