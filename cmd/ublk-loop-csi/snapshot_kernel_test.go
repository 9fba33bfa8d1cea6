package main

import (
	"os"
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
	b.checkCopies()
}

// checkCopies checks copies of volumes of all kinds, which are made with the given changes of the
// request.
func (b *bed) checkCopies(change ...func(*csi.CreateVolumeRequest)) {
	b.Helper()
	for i, access := range []*csi.VolumeCapability{mountAccess("ext4", writers), mountAccess("xfs", writers), blockAccess(writers)} {
		name, size := "source-"+access.GetMount().GetFsType(), int64(320*mib)
		source := b.create(name, size, access, change...)
		source.use("a")
		first, second, third := content(uint64(10*i), 2*mib), content(uint64(10*i+1), 2*mib), content(uint64(10*i+2), 2*mib)
		// Nothing but the snapshot writes the data to the image: a device that is open
		// elsewhere keeps its cache.
		cached := func(*os.File) error { return nil }
		open, err := os.Open(source.file("a"))
		if access.GetBlock() == nil {
			open, err = os.Open(source.target("a"))
		}
		b.ok("open", err)
		b.write(source.file("a"), first, cached)
		snapshot := source.snapshot(name)
		b.write(source.file("a"), second, cached) // the file system is not frozen any longer
		clone := b.create(name+"-clone", size, access, append(change, fromVolume(source.id))...)
		b.put(source.file("a"), third)
		restored := b.create(name+"-restored", 2*size, access, append(change, fromSnapshot(snapshot))...)
		clone.use("b")
		restored.use("c")
		b.has(source.file("a"), third)
		b.has(clone.file("b"), second)
		b.has(restored.file("c"), first)
		if total := restored.usage("c")[0].GetTotal(); total < 2*size*9/10 {
			b.Errorf("%s: the larger copy has %d bytes", name, total)
		}
		b.ok("close", open.Close())
		source.leave("a")
		source.remove()
		b.deleteSnapshot(snapshot)
		b.has(clone.file("b"), second)
		b.has(restored.file("c"), first)
		clone.leave("b")
		restored.leave("c")
		clone.remove()
		restored.remove()
	}
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
