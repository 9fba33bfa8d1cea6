package main

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"

	csi "github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// These are access modes with shorter names.
const (
	oneWriter = csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER
	writers   = csi.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER
	oneReader = csi.VolumeCapability_AccessMode_SINGLE_NODE_READER_ONLY
)

// volume is a volume of a test, with the arguments of its calls.
type volume struct {
	b        *bed
	id, name string // the name is a part of paths
	secrets  map[string]string
	access   *csi.VolumeCapability
}

func mountAccess(fsType string, mode csi.VolumeCapability_AccessMode_Mode, options ...string) *csi.VolumeCapability {
	return &csi.VolumeCapability{
		AccessMode: &csi.VolumeCapability_AccessMode{Mode: mode},
		AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{FsType: fsType, MountFlags: options}},
	}
}

func blockAccess(mode csi.VolumeCapability_AccessMode_Mode) *csi.VolumeCapability {
	return &csi.VolumeCapability{
		AccessMode: &csi.VolumeCapability_AccessMode{Mode: mode},
		AccessType: &csi.VolumeCapability_Block{Block: &csi.VolumeCapability_BlockVolume{}},
	}
}

// creation returns a request for a volume.
func creation(name string, size int64, access *csi.VolumeCapability, change ...func(*csi.CreateVolumeRequest)) *csi.CreateVolumeRequest {
	req := &csi.CreateVolumeRequest{
		Name: name, CapacityRange: &csi.CapacityRange{RequiredBytes: size}, VolumeCapabilities: []*csi.VolumeCapability{access},
	}
	for _, f := range change {
		f(req)
	}
	return req
}

func fromSnapshot(id string) func(*csi.CreateVolumeRequest) {
	return func(req *csi.CreateVolumeRequest) {
		req.VolumeContentSource = &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Snapshot{
			Snapshot: &csi.VolumeContentSource_SnapshotSource{SnapshotId: id},
		}}
	}
}

func fromVolume(id string) func(*csi.CreateVolumeRequest) {
	return func(req *csi.CreateVolumeRequest) {
		req.VolumeContentSource = &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Volume{
			Volume: &csi.VolumeContentSource_VolumeSource{VolumeId: id},
		}}
	}
}

func encrypted(req *csi.CreateVolumeRequest) {
	req.Parameters = map[string]string{"encryption": "luks2"}
}

// layered asks for a volume that has snapshots while it is in use, wherever the pool is.
func layered(req *csi.CreateVolumeRequest) {
	req.Parameters = map[string]string{"snapshotsInUse": "layers"}
}

// create makes a volume, which must succeed.
func (b *bed) create(name string, size int64, access *csi.VolumeCapability, change ...func(*csi.CreateVolumeRequest)) *volume {
	b.Helper()
	reply, err := b.controller.CreateVolume(b.Context(), creation(name, size, access, change...))
	b.ok("create "+name, err)
	if got := reply.GetVolume().GetCapacityBytes(); got < size {
		b.Errorf("volume %s has %d bytes, want %d", name, got, size)
	}
	return &volume{b: b, id: reply.GetVolume().GetVolumeId(), name: filepath.Base(name), access: access}
}

func (v *volume) staging() string { return filepath.Join(v.b.dir, "staging", v.name) }

// target returns the path of a publication.
func (v *volume) target(pod string) string { return filepath.Join(v.b.dir, "pods", pod, v.name) }

// file returns the path of a file in a pod, or of the device.
func (v *volume) file(pod string) string {
	if v.access.GetBlock() != nil {
		return v.target(pod)
	}
	return filepath.Join(v.target(pod), "file")
}

func (v *volume) tryStage() error {
	_, err := v.b.node.NodeStageVolume(v.b.Context(), &csi.NodeStageVolumeRequest{
		VolumeId: v.id, StagingTargetPath: v.staging(), VolumeCapability: v.access, Secrets: v.secrets,
	})
	return err
}

func (v *volume) tryPublish(pod string, readOnly bool, access *csi.VolumeCapability) error {
	_, err := v.b.node.NodePublishVolume(v.b.Context(), &csi.NodePublishVolumeRequest{
		VolumeId: v.id, StagingTargetPath: v.staging(), TargetPath: v.target(pod), VolumeCapability: access, Readonly: readOnly,
		Secrets: v.secrets,
	})
	return err
}

func (v *volume) tryUnpublish(pod string) error {
	_, err := v.b.node.NodeUnpublishVolume(v.b.Context(), &csi.NodeUnpublishVolumeRequest{VolumeId: v.id, TargetPath: v.target(pod)})
	return err
}

func (v *volume) tryUnstage() error {
	_, err := v.b.node.NodeUnstageVolume(v.b.Context(), &csi.NodeUnstageVolumeRequest{VolumeId: v.id, StagingTargetPath: v.staging()})
	return err
}

func (v *volume) tryDelete() error {
	_, err := v.b.controller.DeleteVolume(v.b.Context(), &csi.DeleteVolumeRequest{VolumeId: v.id})
	return err
}

// use stages a volume and publishes it to a pod. It returns the path in the pod.
func (v *volume) use(pod string) string {
	v.b.Helper()
	v.b.ok("stage "+v.name, v.tryStage())
	v.b.ok("publish "+v.name, v.tryPublish(pod, false, v.access))
	return v.target(pod)
}

// leave is the inverse of use.
func (v *volume) leave(pod string) {
	v.b.Helper()
	v.b.ok("unpublish "+v.name, v.tryUnpublish(pod))
	v.b.ok("unstage "+v.name, v.tryUnstage())
}

func (v *volume) remove() {
	v.b.Helper()
	v.b.ok("delete "+v.name, v.tryDelete())
}

// snapshot makes a snapshot of a volume, which must succeed, and returns its id.
func (v *volume) snapshot(name string) string {
	v.b.Helper()
	reply, err := v.trySnapshot(name)
	v.b.ok("snapshot "+name, err)
	if !reply.GetSnapshot().GetReadyToUse() {
		v.b.Errorf("snapshot %s is not ready", name)
	}
	return reply.GetSnapshot().GetSnapshotId()
}

func (v *volume) trySnapshot(name string) (*csi.CreateSnapshotResponse, error) {
	return v.b.controller.CreateSnapshot(v.b.Context(), &csi.CreateSnapshotRequest{Name: name, SourceVolumeId: v.id})
}

func (b *bed) deleteSnapshot(id string) {
	b.Helper()
	_, err := b.controller.DeleteSnapshot(b.Context(), &csi.DeleteSnapshotRequest{SnapshotId: id})
	b.ok("delete snapshot", err)
}

func (v *volume) grow(pod string, size int64) error {
	_, err := v.b.node.NodeExpandVolume(v.b.Context(), &csi.NodeExpandVolumeRequest{
		VolumeId: v.id, VolumePath: v.target(pod), StagingTargetPath: v.staging(), VolumeCapability: v.access,
		CapacityRange: &csi.CapacityRange{RequiredBytes: size},
	})
	return err
}

// usage returns the statistics of a volume in a pod.
func (v *volume) usage(pod string) []*csi.VolumeUsage {
	v.b.Helper()
	reply, err := v.b.node.NodeGetVolumeStats(v.b.Context(), &csi.NodeGetVolumeStatsRequest{VolumeId: v.id, VolumePath: v.target(pod)})
	v.b.ok("stats of "+v.name, err)
	return reply.GetUsage()
}

// ok ends the test unless a call succeeded.
func (b *bed) ok(what string, err error) {
	b.Helper()
	if err != nil {
		b.Fatalf("%s: %v", what, err)
	}
}

// refused fails the test unless a call got a code and an error text that names a field.
func (b *bed) refused(what string, err error, code codes.Code, field string) {
	b.Helper()
	if status.Code(err) != code || !bytes.Contains([]byte(status.Convert(err).Message()), []byte(field)) {
		b.Errorf("%s: %v, want %s with %q", what, err, code, field)
	}
}

// content returns bytes that depend on a seed.
func content(seed uint64, n int) []byte {
	data := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)}).Read(data)
	return data
}

// put writes a file, or the start of a device, to disk.
func (b *bed) put(path string, data []byte) {
	b.Helper()
	b.write(path, data, (*os.File).Sync)
}

// write writes a file, or the start of a device, and calls a function with it.
func (b *bed) write(path string, data []byte, sync func(*os.File) error) {
	b.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	b.ok("open", err)
	_, err = f.WriteAt(data, 0)
	b.ok("write", err)
	b.ok("sync", sync(f))
	b.ok("close", f.Close())
}

// has fails the test unless a file, or the start of a device, has the data. It reads the device, not
// the page cache, if that has nothing else to write.
func (b *bed) has(path string, data []byte) {
	b.Helper()
	f, err := os.Open(path)
	b.ok("open", err)
	defer func() { _ = f.Close() }()
	b.ok("drop the cache of "+path, unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED))
	got := make([]byte, len(data))
	_, err = f.ReadAt(got, 0)
	b.ok("read "+path, err)
	if !bytes.Equal(got, data) {
		b.Errorf("%s has other data", path)
	}
}
