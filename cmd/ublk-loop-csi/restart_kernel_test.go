package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	csi "github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// Volumes in use survive the death of the driver, and then of the server. After the death
// of the node they can be staged again.
func TestKernelRestarts(t *testing.T) {
	b := newBed(t, ublktest.OldestAndNewest)
	b.start()
	data := content(3, mib)
	var volumes []*volume
	var files []string
	for name, access := range map[string]*csi.VolumeCapability{"fs": mountAccess("ext4", oneWriter), "block": blockAccess(oneWriter)} {
		v := b.create(name, 32*mib, access)
		path := v.use("a")
		if name == "fs" {
			path = filepath.Join(path, "file")
		}
		b.put(path, data)
		volumes, files = append(volumes, v), append(files, path)
	}
	check := func(what string) {
		t.Helper()
		b.devicesAre(2)
		for i, v := range volumes {
			b.has(files[i], data)
			b.ok(what+": stage", v.tryStage())
			b.ok(what+": publish", v.tryPublish("a", false, v.access))
		}
	}

	b.driver.end(unix.SIGKILL)
	b.start()
	check("after the death of the driver")

	b.server.end(unix.SIGKILL)
	b.serve()
	check("after the death of the server")

	if b.seesUsers() {
		b.server.end(unix.SIGTERM)
		b.serve()
		check("after an orderly end of the server")
	}

	b.driver.end(unix.SIGKILL)
	b.killNode(volumes)
	b.start()
	b.devicesAre(0)
	for i, v := range volumes {
		v.use("a")
		b.has(files[i], data)
		v.leave("a")
		v.remove()
	}
	b.isClean()
}

// seesUsers reports whether the kernel itself refuses to stop a device that is open. Before,
// the server takes a block volume for unused, because it cannot inspect a process with more
// capabilities.
func (b *bed) seesUsers() bool {
	b.Helper()
	features, err := b.ublk.Features()
	b.ok("features", err)
	return strings.Contains(features.String(), "SAFE_STOP_DEV")
}

// killNode leaves what a restart of the node leaves: the files of the pool and the
// directories of kubelet.
func (b *bed) killNode(volumes []*volume) {
	b.Helper()
	for _, v := range volumes {
		_ = unix.Unmount(v.target("a"), unix.MNT_DETACH)
		_ = unix.Unmount(v.staging(), unix.MNT_DETACH)
	}
	devices, err := b.client.Devices(b.Context())
	b.ok("list", err)
	for i := range devices {
		b.ok("remove", b.client.Remove(b.Context(), &devices[i], true))
	}
}

// A driver that finds a file system frozen, because it was killed during a snapshot, thaws
// it. It deletes volumes and snapshots that were not completed.
func TestKernelUnfinished(t *testing.T) {
	b := newBed(t, ublktest.OldestAndNewest)
	b.start()
	v := b.create("data", 32*mib, mountAccess("ext4", oneWriter))
	path := v.use("a")
	b.driver.end(unix.SIGKILL)

	b.tool("fsfreeze", "--freeze", v.staging())
	for _, name := range []string{
		"volumes/vol-35971be6e9bb-00000000000000000000000000000001", "volumes/vol-35971be6e9bb-00000000000000000000000000000002",
		"snapshots/snap-35971be6e9bb-00000000000000000000000000000003",
	} {
		state := map[bool]string{true: "making", false: "deleting"}[name[len(name)-1] == '1']
		record := `{"id":"` + filepath.Base(name) + `","state":"` + state + `","settings":{}}`
		b.ok("record", os.WriteFile(filepath.Join(b.pool, name+".json"), []byte(record), 0o600))
		b.ok("image", os.WriteFile(filepath.Join(b.pool, name+".img"), make([]byte, mib), 0o600))
	}
	b.ok("record", os.WriteFile(filepath.Join(b.pool, "volumes", v.id+".json.new"), []byte("{"), 0o600))
	b.start()
	b.put(filepath.Join(path, "file"), content(4, mib))
	files, err := filepath.Glob(filepath.Join(b.pool, "*/*"))
	if err != nil || len(files) != 3 { // the record of the volume, and its layer with a record
		t.Errorf("files %q, error %v", files, err)
	}
	v.leave("a")
	v.remove()
	b.isClean()
}

// The driver starts with a damaged record. It reports it, serves the other volumes, and refuses
// calls that would need the record.
func TestKernelDamagedRecord(t *testing.T) {
	b := newBed(t)
	b.start()
	broken := b.create("broken", 32*mib, mountAccess("ext4", oneWriter))
	v := b.create("data", 32*mib, mountAccess("ext4", oneWriter))
	file := filepath.Join(v.use("a"), "file")
	data := content(5, mib)
	b.put(file, data)
	b.driver.end(unix.SIGKILL)
	record := filepath.Join(b.pool, "volumes", broken.id+".json")
	text, err := os.ReadFile(record)
	b.ok("read", err)
	b.ok("damage", os.WriteFile(record, text[:len(text)/2], 0o600))

	b.start()
	b.has(file, data)
	v.leave("a")
	b.has(filepath.Join(v.use("b"), "file"), data)
	b.refused("stage", broken.tryStage(), codes.Internal, broken.id)
	_, err = b.controller.CreateVolume(b.Context(), &csi.CreateVolumeRequest{
		Name: "further", CapacityRange: &csi.CapacityRange{RequiredBytes: 32 * mib},
		VolumeCapabilities: []*csi.VolumeCapability{mountAccess("ext4", oneWriter)},
	})
	b.refused("a further volume", err, codes.Internal, broken.id)
	v.leave("b")
	v.remove()
	b.ok("repair", os.WriteFile(record, text, 0o600))
	broken.remove()
	b.isClean()
	b.driver.end(unix.SIGTERM)
	if log := b.driver.errOut.String(); !strings.Contains(log, broken.id) {
		t.Errorf("the log does not name the volume: %s", log)
	}
}
