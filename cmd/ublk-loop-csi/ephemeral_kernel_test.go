package main

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"testing"
	"time"

	csi "github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// An ephemeral volume exists from the first call for a pod to the last, and a failed call
// leaves nothing.
func TestKernelEphemeralVolume(t *testing.T) {
	b := newBed(t, ublktest.OldestAndNewest)
	b.start()
	target := filepath.Join(b.dir, "pods", "a", "scratch")
	publish := func(attributes map[string]string) error {
		about := map[string]string{"csi.storage.k8s.io/ephemeral": "true", "csi.storage.k8s.io/pod.name": "a"}
		maps.Copy(about, attributes)
		_, err := b.node.NodePublishVolume(b.Context(), &csi.NodePublishVolumeRequest{
			VolumeId: "csi-0123", TargetPath: target, VolumeCapability: mountAccess("", oneWriter), VolumeContext: about,
		})
		return err
	}
	for key, value := range map[string]string{"size": "lots", "fsType": "vfat", "image": "/etc/passwd"} {
		b.refused(key, publish(map[string]string{key: value}), codes.InvalidArgument, "volume_context")
	}
	b.refused("too large", publish(map[string]string{"size": "1000Ti"}), codes.ResourceExhausted, "")
	b.isClean()

	// A target that cannot be made is found out when the device exists.
	b.ok("mkdir", os.MkdirAll(filepath.Dir(target), 0o755))
	b.put(target, []byte("a file"))
	if err := publish(map[string]string{"size": "64Mi"}); err == nil {
		t.Error("a file as target is accepted")
	}
	b.ok("remove", os.Remove(target))
	b.isClean()
	b.devicesAre(0)

	b.ok("publish", publish(map[string]string{"size": "64Mi", "fsType": "ext4"}))
	b.ok("publish again", publish(map[string]string{"size": "64Mi", "fsType": "ext4"}))
	b.refused("publish with another size", publish(map[string]string{"size": "32Mi"}), codes.AlreadyExists, "capacity_range")
	b.put(filepath.Join(target, "file"), content(7, mib))
	v := &volume{b: b, id: "csi-0123", name: "scratch"}
	if total := v.usage("a")[0].GetTotal(); total < 40*mib || total > 64*mib {
		t.Errorf("it has %d bytes", total)
	}
	// A repeated call that fails takes nothing from the pod.
	b.server.end(unix.SIGKILL)
	b.refused("publish without a server", publish(map[string]string{"size": "64Mi", "fsType": "ext4"}), codes.Unavailable, "")
	b.serve()
	b.has(filepath.Join(target, "file"), content(7, mib))
	b.put(filepath.Join(target, "file"), content(8, mib))
	b.ok("unpublish", v.tryUnpublish("a"))
	b.ok("unpublish again", v.tryUnpublish("a"))
	b.devicesAre(0)
	b.isClean()
}

// An ephemeral volume is not larger than the limit. A limit that has changed takes no volume from its pod.
func TestKernelEphemeralLimit(t *testing.T) {
	b := newBed(t, ublktest.Once)
	v := &volume{b: b, id: "csi-0123", name: "scratch", access: mountAccess("", oneWriter)}
	publish := func(attributes map[string]string) error {
		attributes["csi.storage.k8s.io/ephemeral"] = "true"
		_, err := b.node.NodePublishVolume(b.Context(), &csi.NodePublishVolumeRequest{
			VolumeId: v.id, TargetPath: v.target("a"), VolumeCapability: v.access, VolumeContext: attributes,
		})
		return err
	}
	b.start("--ephemeral-limit", "64M")
	b.refused("too large", publish(map[string]string{"size": "65Mi"}), codes.InvalidArgument, "volume_context.size")
	b.refused("without a size", publish(map[string]string{}), codes.InvalidArgument, "volume_context.size")
	b.isClean()
	b.ok("publish", publish(map[string]string{"size": "64Mi"}))
	b.driver.end(unix.SIGTERM)
	b.start("--ephemeral-limit", "32M")
	b.ok("publish again", publish(map[string]string{"size": "64Mi"}))
	b.ok("unpublish", v.tryUnpublish("a"))
	b.refused("publish later", publish(map[string]string{"size": "64Mi"}), codes.InvalidArgument, "volume_context.size")
	// A persistent volume has no such limit.
	b.create("data", 96*mib, v.access).remove()
	b.isClean()
}

// The unmount of a file system whose device has no server would wait for one, and nothing can interrupt it. The
// driver refuses the call instead, and can end.
func TestKernelUnmountWithoutServer(t *testing.T) {
	b := newBed(t, ublktest.OldestAndNewest)
	b.start()
	staged := b.create("staged", 32*mib, mountAccess("ext4", oneWriter))
	staged.use("a")
	inline := &volume{b: b, id: "csi-0123", name: "inline", access: staged.access}
	_, err := b.node.NodePublishVolume(b.Context(), &csi.NodePublishVolumeRequest{
		VolumeId: inline.id, TargetPath: inline.target("a"), VolumeCapability: inline.access,
		VolumeContext: map[string]string{"csi.storage.k8s.io/ephemeral": "true", "size": "32Mi"},
	})
	b.ok("publish", err)
	data := content(9, mib)
	for _, v := range []*volume{staged, inline} {
		b.write(v.file("a"), data, func(*os.File) error { return nil })
	}
	b.ok("unpublish", staged.tryUnpublish("a"))
	b.server.end(unix.SIGKILL)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	_, err = b.node.NodeUnstageVolume(ctx, &csi.NodeUnstageVolumeRequest{VolumeId: staged.id, StagingTargetPath: staged.staging()})
	_, err2 := b.node.NodeUnpublishVolume(ctx, &csi.NodeUnpublishVolumeRequest{VolumeId: inline.id, TargetPath: inline.target("a")})
	cancel()
	b.serve() // before the test can end
	b.refused("unstage without a server", err, codes.Unavailable, "no server")
	b.refused("unpublish without a server", err2, codes.Unavailable, "no server")
	b.has(inline.file("a"), data)
	b.ok("unpublish", inline.tryUnpublish("a"))
	b.ok("unstage", staged.tryUnstage())
	b.has(filepath.Join(staged.use("a"), "file"), data)
	staged.leave("a")
	staged.remove()
	b.devicesAre(0)
	b.isClean()
}
