package main

import (
	"os"
	"path/filepath"
	"testing"

	csi "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// Snapshots and clones of volumes in use have the data of their moment, whatever is written
// or deleted afterwards. A copy can be larger than its source.
func TestKernelSnapshotsAndClones(t *testing.T) {
	b := newBed(t, ublktest.OldestAndNewest, ublktest.ScratchDisk)
	b.poolOnXFS()
	b.start()
	for i, access := range []*csi.VolumeCapability{mountAccess("ext4", writers), mountAccess("xfs", writers), blockAccess(writers)} {
		name, size := "source-"+access.GetMount().GetFsType(), int64(320*mib)
		source := b.create(name, size, access)
		file := func(v *volume, pod string) string {
			if access.GetBlock() != nil {
				return v.target(pod)
			}
			return filepath.Join(v.target(pod), "file")
		}
		source.use("a")
		first, second, third := content(uint64(10*i), 2*mib), content(uint64(10*i+1), 2*mib), content(uint64(10*i+2), 2*mib)
		// Nothing but the snapshot writes the data to the image: a device that is open
		// elsewhere keeps its cache.
		cached := func(*os.File) error { return nil }
		open, err := os.Open(file(source, "a"))
		if access.GetBlock() == nil {
			open, err = os.Open(source.target("a"))
		}
		b.ok("open", err)
		b.write(file(source, "a"), first, cached)
		snapshot := source.snapshot(name)
		b.write(file(source, "a"), second, cached) // the file system is not frozen any longer
		clone := b.create(name+"-clone", size, access, fromVolume(source.id))
		b.put(file(source, "a"), third)
		restored := b.create(name+"-restored", 2*size, access, fromSnapshot(snapshot))
		clone.use("b")
		restored.use("c")
		b.has(file(source, "a"), third)
		b.has(file(clone, "b"), second)
		b.has(file(restored, "c"), first)
		if total := restored.usage("c")[0].GetTotal(); total < 2*size*9/10 {
			t.Errorf("%s: the larger copy has %d bytes", name, total)
		}
		b.ok("close", open.Close())
		source.leave("a")
		source.remove()
		b.deleteSnapshot(snapshot)
		b.has(file(clone, "b"), second)
		b.has(file(restored, "c"), first)
		clone.leave("b")
		restored.leave("c")
		clone.remove()
		restored.remove()
	}
	b.isClean()
}

// Where files cannot share blocks, a volume is copied only while it is not in use.
func TestKernelSnapshotWithoutReflink(t *testing.T) {
	b := newBed(t, ublktest.Once)
	b.start() // on tmpfs
	v := b.create("data", 16*mib, blockAccess(writers))
	data := content(5, mib)
	b.put(v.use("a"), data)
	_, err := b.controller.CreateSnapshot(b.Context(), &csi.CreateSnapshotRequest{Name: "s", SourceVolumeId: v.id})
	b.refused("snapshot in use", err, codes.FailedPrecondition, "in use")
	_, err = b.controller.CreateVolume(b.Context(), creation("clone", 0, v.access, fromVolume(v.id)))
	b.refused("clone in use", err, codes.FailedPrecondition, "in use")
	v.leave("a")
	snapshot := v.snapshot("s")
	v.remove()
	restored := b.create("restored", 16*mib, v.access, fromSnapshot(snapshot))
	b.deleteSnapshot(snapshot)
	b.has(restored.use("a"), data)
	restored.leave("a")
	restored.remove()
	b.isClean()
}

// A copy that the source cannot give is refused, with the field that is wrong.
func TestKernelWrongSources(t *testing.T) {
	b := newBed(t, ublktest.Once)
	b.start()
	v := b.create("data", 16*mib, mountAccess("ext4", writers))
	v.use("a")
	v.leave("a")
	for what, tt := range map[string]struct {
		req   *csi.CreateVolumeRequest
		code  codes.Code
		field string
	}{
		"smaller":             {creation("x", 8*mib, v.access, fromVolume(v.id)), codes.OutOfRange, "required_bytes"},
		"another file system": {creation("x", 0, mountAccess("xfs", writers), fromVolume(v.id)), codes.InvalidArgument, "fs_type"},
		"encrypted":           {creation("x", 0, v.access, fromVolume(v.id), encrypted), codes.InvalidArgument, "encryption"},
		"another node":        {creation("x", 0, v.access, fromVolume("vol-000000000000-00000000000000000000000000000000")), codes.ResourceExhausted, "node-1"},
		"no source":           {creation("x", 0, v.access, fromVolume("../../etc/passwd")), codes.NotFound, "volume_content_source"},
	} {
		_, err := b.controller.CreateVolume(b.Context(), tt.req)
		b.refused(what, err, tt.code, tt.field)
	}
	v.remove()
	b.isClean()
}
