package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	csi "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// state is how far a volume of the model has come.
type state int

const (
	absent state = iota
	created
	staged
	published
)

// copyName is the name of the only volume that is a copy of a snapshot. It is also that of its
// directories, which dropCopies has to find.
const copyName = "copy"

// subject is a volume under random calls. The state is what the driver has answered, and
// pending says that a call got no answer, so that its effect is unknown.
type subject struct {
	*volume
	state   state
	pending bool
	seed    uint64 // of the data, 0 for none
	size    int64
	change  []func(*csi.CreateVolumeRequest) // of the requests for the volume and its copies
}

// Wherever the driver is killed, each call that it answered has its effect, each call that
// it did not answer can be repeated or undone, no data is lost, and nothing is left at the
// end.
func TestCrashDriver(t *testing.T) {
	b := newBed(t, ublktest.OldestAndNewest, ublktest.ScratchDisk, ublktest.Soak)
	b.poolOnXFS()
	b.crash(400*time.Millisecond, nil)
}

// TestCrashDriverLayers is TestCrashDriver for a pool whose files cannot share blocks.
func TestCrashDriverLayers(t *testing.T) {
	b := newBed(t, ublktest.OldestAndNewest, ublktest.Soak)
	b.crash(400*time.Millisecond, nil, layered)
}

// crash kills the driver at random moments of random calls for volumes. longest is the longest time until
// the end of the driver.
func (b *bed) crash(longest time.Duration, secrets map[string]string, change ...func(*csi.CreateVolumeRequest)) {
	b.Helper()
	b.start("--overcommit", "8")
	var subjects []*subject
	for i := range 4 {
		access := mountAccess("ext4", oneWriter)
		if i%2 == 1 {
			access = blockAccess(oneWriter)
		}
		s := &subject{volume: &volume{b: b, name: fmt.Sprintf("volume-%d", i), access: access, secrets: secrets}, size: 16 * mib}
		if i < 2 || secrets != nil { // the others get a store with their first copy
			s.change = change
		}
		subjects = append(subjects, s)
	}
	random := rand.New(rand.NewPCG(1, uint64(time.Now().UnixNano())))
	ublktest.UntilHit(b, "kill the driver during a call", ublktest.Kills(b, 5, 100), 1, 400, func(i int) bool {
		timer := time.AfterFunc(ublktest.Moment(longest, i), func() { _ = b.driver.cmd.Process.Kill() })
		hit := false
		for alive := true; alive; {
			s := subjects[random.IntN(len(subjects))]
			alive = b.step(s, random)
			hit = hit || s.pending
		}
		timer.Stop()
		<-b.driver.done
		b.start("--overcommit", "8")
		for _, s := range subjects {
			b.settle(s)
		}
		return hit
	})
	for _, s := range subjects {
		b.undo(s)
	}
	b.devicesAre(0)
	b.isClean()
}

// step makes a random call for a volume, and reports whether the driver answered.
func (b *bed) step(s *subject, random *rand.Rand) bool {
	b.Helper()
	next, call := s.state, s.copy
	forward := random.IntN(3) > 0
	switch {
	case s.state == absent:
		next, call = created, s.make
	case s.state == created && forward:
		next, call = staged, s.tryStage
	case s.state == created:
		next, call = absent, s.tryDelete
	case s.state == staged && forward:
		next, call = published, func() error { return s.tryPublish("a", false, s.access) }
	case s.state == staged:
		next, call = created, s.tryUnstage
	case random.IntN(3) == 0:
		next, call = staged, func() error { return s.tryUnpublish("a") }
	case random.IntN(4) == 0 && s.size < maxSize:
		s.size += 4 * mib
		call = s.enlarge
	}
	err := call()
	if status.Code(err) == codes.Unavailable {
		s.pending = true
		return false
	}
	if err != nil {
		b.Fatalf("%s: from %d to %d: %v", s.name, s.state, next, err)
	}
	s.arrive(next)
	return true
}

// arrive notes a new state. A published volume gets new data, which it must keep.
func (s *subject) arrive(next state) {
	if next == absent {
		s.seed = 0
	}
	if s.state = next; next != published {
		return
	}
	if s.seed != 0 {
		s.b.has(s.file("a"), content(s.seed, mib))
	}
	s.seed = rand.Uint64N(1<<16-1) + 1
	s.b.put(s.file("a"), content(s.seed, mib))
}

// maxSize is the size up to which volumes grow.
const maxSize = 32 * mib

// enlarge grows a published volume to its size in the model. A volume that cannot grow in use has
// it when it is staged again.
func (s *subject) enlarge() error {
	err := s.grow("a", s.size)
	if status.Code(err) == codes.FailedPrecondition {
		return nil
	}
	if err == nil && s.access.GetBlock() != nil {
		if size := s.b.sizeOf(s.file("a")); size != s.size {
			s.b.Errorf("%s has %d bytes, want %d", s.name, size, s.size)
		}
	}
	return err
}

func (s *subject) make() error {
	if s.state == absent {
		s.size = 16 * mib
	}
	reply, err := s.b.controller.CreateVolume(s.b.Context(), creation(s.name, s.size, s.access, s.change...))
	if err == nil {
		s.id = reply.GetVolume().GetVolumeId()
	}
	return err
}

// copy makes a snapshot of a published volume, compares it, and deletes it.
func (s *subject) copy() error {
	ctx := s.b.Context()
	reply, err := s.b.controller.CreateSnapshot(ctx, &csi.CreateSnapshotRequest{Name: s.name, SourceVolumeId: s.id})
	if err != nil {
		return err
	}
	return s.compare(ctx, reply.GetSnapshot().GetSnapshotId())
}

// compare restores a snapshot, compares the data, and deletes both.
func (s *subject) compare(ctx context.Context, snapshot string) error {
	made, err := s.b.controller.CreateVolume(ctx, creation(copyName, s.size, s.access, append(s.change, fromSnapshot(snapshot))...))
	if err != nil {
		return err
	}
	c := &subject{volume: &volume{b: s.b, id: made.GetVolume().GetVolumeId(), name: copyName, access: s.access, secrets: s.secrets}}
	for _, call := range []func() error{
		c.tryStage, func() error { return c.tryPublish("a", false, c.access) },
		func() error { s.b.has(c.file("a"), content(s.seed, mib)); return nil },
		func() error { return c.tryUnpublish("a") }, c.tryUnstage, c.tryDelete,
		func() error {
			_, err := s.b.controller.DeleteSnapshot(ctx, &csi.DeleteSnapshotRequest{SnapshotId: snapshot})
			return err
		},
	} {
		if err := call(); err != nil {
			return err
		}
	}
	return nil
}

// settle finds out what became of a call without an answer. It repeats the calls that lead
// to the state before, which must succeed as Kubernetes repeats them, and compares the data.
func (b *bed) settle(s *subject) {
	b.Helper()
	b.dropCopies(s)
	if s.pending {
		s.pending = false
		b.undoTo(s)
	}
	if s.state == published {
		b.has(s.file("a"), content(s.seed, mib))
	}
}

// undoTo brings a volume to the state before a call without an answer.
func (b *bed) undoTo(s *subject) {
	b.Helper()
	if s.state == absent {
		b.ok("create again", s.make())
		b.ok("delete", s.tryDelete())
		return
	}
	if !b.exists(s.id) { // the call was a deletion, which has happened
		s.state, s.seed = absent, 0
		return
	}
	switch s.state {
	case created:
		b.ok("stage again", s.tryStage())
		b.ok("unstage", s.tryUnstage())
	case staged:
		b.ok("stage again", s.tryStage())
		b.ok("publish again", s.tryPublish("a", false, s.access))
		b.ok("unpublish", s.tryUnpublish("a"))
	case published:
		b.ok("stage again", s.tryStage())
		b.ok("publish again", s.tryPublish("a", false, s.access))
		b.ok("grow again", s.enlarge())
	}
}

// exists reports whether the driver lists a volume.
func (b *bed) exists(id string) bool {
	b.Helper()
	list, err := b.controller.ListVolumes(b.Context(), &csi.ListVolumesRequest{})
	b.ok("list", err)
	for _, e := range list.GetEntries() {
		if e.GetVolume().GetVolumeId() == id {
			return true
		}
	}
	return false
}

// dropCopies deletes the snapshot and its copy that an interrupted comparison left.
func (b *bed) dropCopies(s *subject) {
	b.Helper()
	if s.id == "" {
		return
	}

	list, err := b.controller.ListVolumes(b.Context(), &csi.ListVolumesRequest{})
	b.ok("list", err)
	for _, e := range list.GetEntries() {
		if e.GetVolume().GetContentSource() == nil {
			continue
		}
		c := &volume{b: b, id: e.GetVolume().GetVolumeId(), name: copyName, access: s.access}
		b.ok("unpublish copy", c.tryUnpublish("a"))
		b.ok("unstage copy", c.tryUnstage())
		b.ok("delete copy", c.tryDelete())
	}
	snapshots, err := b.controller.ListSnapshots(b.Context(), &csi.ListSnapshotsRequest{SourceVolumeId: s.id})
	b.ok("list snapshots", err)
	for _, e := range snapshots.GetEntries() {
		b.deleteSnapshot(e.GetSnapshot().GetSnapshotId())
	}
}

// undo removes a volume.
func (b *bed) undo(s *subject) {
	b.Helper()
	if s.state == absent {
		return
	}
	b.ok("unpublish", s.tryUnpublish("a"))
	b.ok("unstage", s.tryUnstage())
	b.ok("delete", s.tryDelete())
}
