package main

import (
	"sync"
	"testing"

	csi "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// Calls for one volume at the same time have one effect: each succeeds or is ABORTED.
func TestKernelConcurrentCalls(t *testing.T) {
	b := newBed(t, ublktest.OldestAndNewest)
	b.start()
	for _, access := range []*csi.VolumeCapability{mountAccess("ext4", writers), blockAccess(writers)} {
		v := &volume{b: b, name: "shared", access: access}
		ids := make(chan string, 100)
		b.atOnce("create", func() error {
			reply, err := b.controller.CreateVolume(t.Context(), creation(v.name, 32*mib, access))
			if err == nil {
				ids <- reply.GetVolume().GetVolumeId()
			}
			return err
		})
		v.id = <-ids
		for len(ids) > 0 {
			if id := <-ids; id != v.id {
				t.Errorf("volumes %s and %s", v.id, id)
			}
		}
		b.atOnce("stage", v.tryStage)
		b.devicesAre(1)
		b.atOnce("publish", func() error { return v.tryPublish("a", false, access) })
		if n := len(mountsAt(t, v.target("a"))); n != 1 {
			t.Errorf("%d mounts at the target", n)
		}
		b.atOnce("unpublish", func() error { return v.tryUnpublish("a") })
		b.atOnce("unstage", v.tryUnstage)
		b.devicesAre(0)
		b.atOnce("delete", v.tryDelete)
		b.isClean()
	}
}

// atOnce makes a call many times at once. At least one must succeed.
func (b *bed) atOnce(what string, call func() error) {
	b.Helper()
	errs := make([]error, 16)
	var group sync.WaitGroup
	for i := range errs {
		group.Go(func() { errs[i] = call() })
	}
	group.Wait()
	succeeded := 0
	for _, err := range errs {
		switch status.Code(err) {
		case codes.OK:
			succeeded++
		case codes.Aborted:
		default:
			b.Fatalf("%s: %v", what, err)
		}
	}
	if succeeded == 0 {
		b.Errorf("%s: no call succeeded", what)
	}
}

// mountsAt returns the mounts at a path.
func mountsAt(t testing.TB, path string) (list []string) {
	t.Helper()
	for _, p := range mountPoints(t) {
		if p == path {
			list = append(list, p)
		}
	}
	return list
}
