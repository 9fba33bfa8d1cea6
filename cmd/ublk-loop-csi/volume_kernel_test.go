package main

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	csi "github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"

	"github.com/ublk-loop/ublk-loop/cmd/ublk-loop-csi/mounts"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

const mib = 1 << 20

// A volume with a file system keeps its files, and every call that contradicts an earlier
// one is refused.
func TestKernelFileSystemVolume(t *testing.T) {
	b := newBed(t, ublktest.OldestAndNewest)
	b.start()
	v := b.create("../data", 64*mib, mountAccess("", writers, "noatime"))
	path := v.use("a")
	data := content(1, 3*mib)
	b.put(filepath.Join(path, "file"), data)

	b.ok("stage again", v.tryStage())
	b.ok("publish again", v.tryPublish("a", false, v.access))
	b.refused("publish read-only at the same target", v.tryPublish("a", true, v.access), codes.AlreadyExists, "target_path")
	b.refused("publish for one writer", v.tryPublish("b", false, mountAccess("", oneWriter)), codes.FailedPrecondition, "target_path")
	b.refused("publish as a device", v.tryPublish("b", false, blockAccess(writers)), codes.InvalidArgument, "volume_capability")
	b.refused("unstage while published", v.tryUnstage(), codes.FailedPrecondition, "volume_id")
	b.refused("delete while staged", v.tryDelete(), codes.FailedPrecondition, "volume_id")
	other := *v
	other.access = mountAccess("ext4", writers)
	b.refused("stage with another capability", other.tryStage(), codes.AlreadyExists, "volume_capability")
	other = *v
	other.name = "elsewhere"
	b.refused("stage elsewhere", other.tryStage(), codes.FailedPrecondition, "staging_target_path")

	b.ok("publish read-only to another pod", v.tryPublish("b", true, v.access))
	b.has(filepath.Join(v.target("b"), "file"), data)
	if err := os.WriteFile(filepath.Join(v.target("b"), "x"), nil, 0o600); !errors.Is(err, unix.EROFS) {
		t.Errorf("write to the read-only publication: error %v, want EROFS", err)
	}
	b.ok("unpublish", v.tryUnpublish("b"))
	b.ok("unpublish again", v.tryUnpublish("b"))
	if usage := v.usage("a"); usage[0].GetUsed() < 3*mib || usage[0].GetTotal() < 32*mib || usage[1].GetUnit() != csi.VolumeUsage_INODES {
		t.Errorf("usage %v", usage)
	}

	v.leave("a")
	for _, path := range []string{v.target("a"), v.target("b")} {
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left, error %v", path, err)
		}
	}
	b.devicesAre(0)
	b.has(filepath.Join(v.use("c"), "file"), data)
	v.leave("c")
	v.remove()
	v.remove()
	b.ok("unpublish a deleted volume", v.tryUnpublish("a"))
	b.ok("unstage a deleted volume", v.tryUnstage())
	b.isClean()
}

// A block volume has exactly its size, keeps its data, and is read-only if all its pods
// only read.
func TestKernelBlockVolume(t *testing.T) {
	b := newBed(t, ublktest.OldestAndNewest)
	b.start()
	v := b.create("block", 48*mib, blockAccess(writers))
	path := v.use("a")
	data := content(2, mib)
	b.put(path, data)
	if size := v.usage("a")[0].GetTotal(); size != 48*mib || b.sizeOf(path) != size {
		t.Errorf("the device has %d bytes, the statistics %d", b.sizeOf(path), size)
	}
	b.ok("publish read-only", v.tryPublish("b", true, v.access))
	b.put(path, data) // a pod still writes
	b.ok("unpublish", v.tryUnpublish("a"))
	b.ok("publish read-only again", v.tryPublish("b", true, v.access))
	if f, err := os.OpenFile(v.target("b"), os.O_WRONLY, 0); err == nil {
		if _, err = f.WriteAt(data, 0); err == nil {
			err = f.Sync()
		}
		_ = f.Close()
		if err == nil {
			t.Error("the read-only device can be written to")
		}
	}
	b.has(v.target("b"), data)
	v.leave("b")

	// The volume has data that no record explains, so no file system is made on it.
	v.access = mountAccess("ext4", writers)
	b.refused("stage with a file system", v.tryStage(), codes.FailedPrecondition, "no file system is made")
	v.access = blockAccess(writers)
	b.has(v.use("a"), data)
	v.leave("a")
	v.remove()
	b.isClean()
}

// sizeOf returns the size of a device.
func (b *bed) sizeOf(path string) int64 {
	b.Helper()
	f, err := os.Open(path)
	b.ok("open", err)
	defer func() { _ = f.Close() }()
	size, err := f.Seek(0, 2)
	b.ok("seek", err)
	return size
}

// A volume grows while a pod uses it, or, on older kernels, when its next pod starts.
func TestKernelGrowth(t *testing.T) {
	b := newBed(t, ublktest.EveryKernel)
	b.start()
	v := b.create("grows", 16*mib, mountAccess("ext4", oneWriter))
	v.use("a")
	before := v.usage("a")[0].GetTotal()
	if err := v.grow("a", 48*mib); !b.updateSize(err) {
		b.ok("stage again", v.tryStage()) // the pod still uses it
		v.leave("a")
		v.use("a")
	}
	if after := v.usage("a")[0].GetTotal(); after < before+24*mib {
		t.Errorf("%d bytes, before %d", after, before)
	}
	v.leave("a")
	v.remove()
	b.isClean()
}

// The driver offers growth in use if the kernel can do that.
func TestKernelOffersGrowth(t *testing.T) {
	b := newBed(t, ublktest.EveryKernel)
	b.start()
	want := csi.PluginCapability_VolumeExpansion_OFFLINE
	if b.growsInUse() {
		want = csi.PluginCapability_VolumeExpansion_ONLINE
	}
	reply, err := b.identity.GetPluginCapabilities(t.Context(), &csi.GetPluginCapabilitiesRequest{})
	b.ok("capabilities", err)
	var got []csi.PluginCapability_VolumeExpansion_Type
	for _, c := range reply.GetCapabilities() {
		if c.GetVolumeExpansion() != nil {
			got = append(got, c.GetVolumeExpansion().GetType())
		}
	}
	if len(got) != 1 || got[0] != want {
		t.Errorf("the driver offers %v, want %v", got, want)
	}
}

// growsInUse reports whether the kernel can change the size of a device in use.
func (b *bed) growsInUse() bool {
	b.Helper()
	features, err := b.ublk.Features()
	b.ok("features", err)
	return strings.Contains(features.String(), "UPDATE_SIZE")
}

// Volumes of all kinds grow: their images, devices and file systems.
func TestKernelGrowthOfKinds(t *testing.T) {
	b := newBed(t, ublktest.OldestAndNewest, ublktest.ScratchDisk)
	b.poolOnXFS()
	b.start()
	for _, access := range []*csi.VolumeCapability{mountAccess("ext4", oneWriter), mountAccess("xfs", oneWriter), blockAccess(oneWriter)} {
		name := "grows-" + access.GetMount().GetFsType()
		v := b.create(name, 320*mib, access)
		path := v.use("a")
		before := v.usage("a")[0].GetTotal()
		if err := v.grow("a", 640*mib); !b.updateSize(err) {
			v.leave("a")
			v.use("a")
		}
		if after := v.usage("a")[0].GetTotal(); after < before+256*mib {
			t.Errorf("%s: %d bytes, before %d", name, after, before)
		}
		if access.GetBlock() != nil && b.sizeOf(path) != 640*mib {
			t.Errorf("the device has %d bytes", b.sizeOf(path))
		}
		b.refused("grow beyond the pool", v.grow("a", 1<<50), codes.ResourceExhausted, "capacity_range")
		v.leave("a")
		v.remove()
	}
	b.isClean()
}

// updateSize reports whether the kernel can grow a device in use. If it cannot, the driver
// must say so.
func (b *bed) updateSize(err error) bool {
	b.Helper()
	if err == nil {
		return true
	}
	b.refused("grow", err, codes.FailedPrecondition, "staged again")
	ublktest.CheckAbility(b, ublktest.UpdateSize, false)
	return false
}

// A volume whose publication failed can be unstaged and deleted without NodeUnpublishVolume, which Kubernetes
// does not call then.
func TestKernelFailedPublication(t *testing.T) {
	b := newBed(t, ublktest.Once)
	b.start()
	for name, access := range map[string]*csi.VolumeCapability{"fs": mountAccess("ext4", writers), "block": blockAccess(writers)} {
		v := b.create(name, 32*mib, access)
		v.use("a")
		wrong := v.target("b") // a file with data for a directory, or a directory for a device
		b.ok("mkdir", os.MkdirAll(filepath.Dir(wrong), 0o755))
		if access.GetBlock() != nil {
			b.ok("mkdir", os.MkdirAll(filepath.Join(wrong, "x"), 0o755))
		} else {
			b.put(wrong, []byte("a file"))
		}
		if err := v.tryPublish("b", false, access); err == nil {
			t.Errorf("%s: a wrong target is accepted", name)
		}
		b.ok("publish again", v.tryPublish("a", false, access))
		b.ok("unpublish", v.tryUnpublish("a"))
		b.ok("unstage", v.tryUnstage())
		v.remove()
		if _, err := os.Stat(wrong); err != nil {
			t.Errorf("%s: the file of others: %v", name, err)
		}
	}
	b.isClean()
}

// There are no statistics of a path at which the volume is not mounted any longer.
func TestKernelStatsWithoutMount(t *testing.T) {
	b := newBed(t, ublktest.Once)
	b.start()
	v := b.create("data", 32*mib, mountAccess("ext4", oneWriter))
	b.ok("unmount", unix.Unmount(v.use("a"), 0))
	_, err := b.node.NodeGetVolumeStats(b.Context(), &csi.NodeGetVolumeStatsRequest{VolumeId: v.id, VolumePath: v.target("a")})
	b.refused("stats", err, codes.NotFound, "volume_path")
	b.ok("publish again", v.tryPublish("a", false, v.access))
	v.usage("a")
	v.leave("a")
	v.remove()
	b.isClean()
}

// A publication whose mount others have ended keeps the volume neither from another pod nor from its end.
func TestKernelPublicationWithoutMount(t *testing.T) {
	b := newBed(t, ublktest.Once)
	b.start()
	for name, access := range map[string]*csi.VolumeCapability{"fs": mountAccess("ext4", oneWriter), "block": blockAccess(oneWriter)} {
		v := b.create(name, 32*mib, access)
		b.ok("unmount", unix.Unmount(v.use("a"), 0))
		b.ok("publish to another pod", v.tryPublish("b", false, access))
		b.refused("publish to a third pod", v.tryPublish("c", false, access), codes.FailedPrecondition, "target_path")
		b.ok("unmount", unix.Unmount(v.target("b"), 0))
		b.ok("unstage", v.tryUnstage())
		v.remove()
	}
	b.devicesAre(0)
	b.isClean()
}

// The directory of kubelet can be reached through links.
func TestKernelLinkedDirectories(t *testing.T) {
	b := newBed(t, ublktest.Once)
	for _, name := range []string{"staging", "pods"} {
		real := filepath.Join(b.dir, "disk", name)
		b.ok("mkdir", os.MkdirAll(real, 0o700))
		b.ok("link", os.Symlink(real, filepath.Join(b.dir, name)))
	}
	b.start()
	for name, access := range map[string]*csi.VolumeCapability{"fs": mountAccess("ext4", oneWriter), "block": blockAccess(oneWriter)} {
		v := b.create(name, 32*mib, access)
		v.use("a")
		b.put(v.file("a"), content(6, mib))
		v.use("a")
		b.driver.end(unix.SIGKILL)
		b.start()
		v.use("a")
		b.has(v.file("a"), content(6, mib))
		v.usage("a")
		v.leave("a")
		v.remove()
	}
	b.devicesAre(0)
	b.isClean()
}

// If the driver ends between the mount and the growth of a larger copy, the repeated call grows it.
func TestKernelStageEndsBeforeGrowth(t *testing.T) {
	b := newBed(t, ublktest.Once)
	steps := filepath.Join(b.dir, "steps")
	others := slices.DeleteFunc(stepNames(t), func(name string) bool { return name == "stage: mounted" })
	b.put(steps, []byte(strings.Join(others, "\n")+"\nstage: mounted\n"))
	t.Setenv(stepsFile, steps)
	b.start()
	v := b.create("data", 16*mib, mountAccess("ext4", oneWriter))
	v.use("a")
	v.leave("a")
	clone := b.create("clone", 64*mib, v.access, fromVolume(v.id))
	b.ok("end at the step", os.WriteFile(steps, []byte(strings.Join(others, "\n")+"\n"), 0o600))
	b.refused("stage", clone.tryStage(), codes.Unavailable, "")
	<-b.driver.done
	b.start()
	clone.use("a")
	if total := clone.usage("a")[0].GetTotal(); total < 48*mib {
		t.Errorf("the file system has %d bytes", total)
	}
	clone.leave("a")
	clone.remove()
	v.remove()
	b.isClean()
}

// A read-only publication has the other flags of the file system's mount.
func TestKernelReadOnlyKeepsFlags(t *testing.T) {
	b := newBed(t, ublktest.OldestAndNewest)
	b.start()
	v := b.create("data", 32*mib, mountAccess("ext4", writers, "nosymfollow", "nosuid", "nodev", "noexec", "noatime"))
	v.use("a")
	b.ok("publish read-only", v.tryPublish("b", true, v.access))
	b.ok("publish again", v.tryPublish("b", true, v.access))
	var a, r unix.Statfs_t
	b.ok("statfs", errors.Join(unix.Statfs(v.target("a"), &a), unix.Statfs(v.target("b"), &r)))
	const noSymFollow = 0x2000 // ST_NOSYMFOLLOW of include/linux/statfs.h
	if a.Flags&noSymFollow == 0 || r.Flags != a.Flags|unix.ST_RDONLY {
		t.Errorf("flags %#x, those of the other publication are %#x", r.Flags, a.Flags)
	}
	b.ok("unpublish", v.tryUnpublish("b"))
	v.leave("a")
	v.remove()
	b.isClean()
}

// A file system that is mounted read-only grows when it is mounted for writes. Until then it keeps no pod from its start.
func TestKernelGrowthOfReadOnly(t *testing.T) {
	b := newBed(t, ublktest.Once)
	b.start()
	v := b.create("data", 16*mib, mountAccess("ext4", oneWriter))
	v.use("a")
	v.leave("a")
	for i, options := range []string{"ro", "noatime,ro"} {
		v.access = mountAccess("ext4", oneWriter, options)
		v.use("a")
		b.ok("grow", v.grow("a", int64(32+16*i)*mib))
		v.leave("a")
	}
	v.access = mountAccess("ext4", oneWriter)
	v.use("a")
	if total := v.usage("a")[0].GetTotal(); total < 40*mib {
		t.Errorf("the file system has %d bytes", total)
	}
	v.leave("a")
	v.remove()
	b.isClean()
}

// If the driver ended before it made a file system, and a pod had the volume as a device since, no file system is made over the
// pod's data.
func TestKernelUnfinishedFileSystemOfDevice(t *testing.T) {
	b := newBed(t, ublktest.Once)
	steps := filepath.Join(b.dir, "steps")
	others := slices.DeleteFunc(stepNames(t), func(name string) bool { return name == "stage: formatting" })
	b.put(steps, []byte(strings.Join(others, "\n")+"\n"))
	t.Setenv(stepsFile, steps)
	b.start()
	v := b.create("data", 32*mib, mountAccess("ext4", oneWriter))
	b.refused("stage", v.tryStage(), codes.Unavailable, "")
	<-b.driver.done
	b.start()
	copied := b.create("copied", 32*mib, v.access, fromVolume(v.id))
	data := content(4, 2*mib)
	for _, v := range []*volume{v, copied} {
		fs := v.access
		v.access = blockAccess(oneWriter)
		b.put(v.use("a"), data)
		v.leave("a")
		v.access = fs
		b.refused("stage with a file system", v.tryStage(), codes.FailedPrecondition, "no file system is made")
		v.access = blockAccess(oneWriter)
		b.has(v.use("a"), data)
		v.leave("a")
		v.remove()
	}
	b.isClean()
}

// A pod gets neither another device nor a directory from which others have unmounted the volume. Its data would go to the
// file system below.
func TestKernelBindOfOther(t *testing.T) {
	b := newBed(t, ublktest.Once)
	b.start()
	for name, access := range map[string]*csi.VolumeCapability{"fs": mountAccess("ext4", oneWriter), "block": blockAccess(oneWriter)} {
		v := b.create(name, 32*mib, access)
		v.use("a")
		number, source := v.number("a"), v.staging()
		if access.GetBlock() != nil {
			source = "/dev/null"
		} else {
			b.ok("unpublish", v.tryUnpublish("a"))
			b.ok("unmount", unix.Unmount(source, 0))
		}
		before := mountPoints(t)
		if access.GetBlock() == nil { // the file system of the node must not be frozen
			if err := mounts.Freeze(t.Context(), source, number, nil); !errors.Is(err, mounts.ErrOther) {
				t.Errorf("freeze: error %v, want %v", err, mounts.ErrOther)
			}
		}
		target := filepath.Join(t.TempDir(), "target")
		b.ok("make the target", mounts.MakeTarget(target, access.GetBlock() != nil))
		for _, readOnly := range []bool{false, true} {
			if err := mounts.Bind(source, target, number, readOnly); !errors.Is(err, mounts.ErrOther) {
				t.Errorf("%s, read-only %t: error %v, want %v", name, readOnly, err, mounts.ErrOther)
			}
		}
		if after := mountPoints(t); !slices.Equal(after, before) {
			t.Errorf("%s: mounts %q, want %q", name, after, before)
		}
		v.leave("a")
		v.remove()
	}
	b.isClean()
}

// number returns the number of a volume's device.
func (v *volume) number(pod string) string {
	v.b.Helper()
	if v.access.GetBlock() != nil {
		number, err := mounts.Number(v.target(pod))
		v.b.ok("stat", err)
		return number
	}
	table, err := mounts.Read()
	v.b.ok("read the mounts", err)
	return table.At(v.target(pod)).MajMin
}

// A volume cannot be made of itself. The answer is final, so that Kubernetes does not ask for ever.
func TestKernelOwnSource(t *testing.T) {
	b := newBed(t, ublktest.Once)
	b.start()
	v := b.create("self", 16*mib, mountAccess("ext4", oneWriter))
	again := creation("self", 16*mib, v.access, fromVolume(v.id))
	_, err := b.controller.CreateVolume(b.Context(), again)
	b.refused("a volume that exists", err, codes.AlreadyExists, "volume_content_source")
	v.remove()
	_, err = b.controller.CreateVolume(b.Context(), again)
	b.refused("a volume that does not exist", err, codes.NotFound, "volume_content_source")
	b.isClean()
}
