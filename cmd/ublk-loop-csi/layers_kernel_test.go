package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"
	"time"

	csi "github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"

	"github.com/ublk-loop/ublk-loop/cmd/ublk-loop-csi/pool"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// Where files cannot share blocks, a volume with layers has the same snapshots and clones.
func TestKernelLayers(t *testing.T) {
	b := newBed(t, ublktest.OldestAndNewest)
	b.start("--overcommit", "8") // on tmpfs
	b.checkCopies(layered)
}

// allocated returns the bytes that the images of the pool take, each file once.
func (b *bed) allocated() int64 {
	b.Helper()
	images, err := filepath.Glob(filepath.Join(b.pool, "*/*.img"))
	b.ok("list", err)
	sizes := map[uint64]int64{}
	for _, image := range images {
		var st unix.Stat_t
		b.ok("stat", unix.Stat(image, &st))
		sizes[st.Ino] = st.Blocks * 512
	}
	var sum int64
	for _, n := range sizes {
		sum += n
	}
	return sum
}

// A chain of layers does not become longer than eight. A volume in use gets no further snapshot
// then, and one that is not in use gets one image.
func TestKernelLongChain(t *testing.T) {
	b := newBed(t, ublktest.Once)
	b.start() // on tmpfs
	v := b.create("data", 16*mib, blockAccess(writers), layered)
	v.use("a")
	var snapshots []string
	var data [][]byte
	var last []byte
	snap := func() error {
		i := len(snapshots)
		all := content(uint64(20+i), mib)
		if i > 0 {
			all = append(all, data[i-1][:min(len(data[i-1]), 8*mib)]...) // each has the one before behind it
		}
		last = all
		b.put(v.file("a"), all)
		reply, err := v.trySnapshot(fmt.Sprint("s", i))
		if err == nil {
			snapshots, data = append(snapshots, reply.GetSnapshot().GetSnapshotId()), append(data, all)
		}
		return err
	}
	for range pool.MaxChain - 1 { // the volume has a store above them
		b.ok("snapshot", snap())
	}
	b.refused("snapshot of the longest chain", snap(), codes.FailedPrecondition, "8 layers")
	b.deleteSnapshot(snapshots[pool.MaxChain-2]) // only the store above its layer needs this now
	snapshots, data = snapshots[:pool.MaxChain-2], data[:pool.MaxChain-2]
	b.ok("snapshot after a deletion", snap())
	b.refused("snapshot of the longest chain", snap(), codes.FailedPrecondition, "8 layers")
	v.leave("a")
	_, err := v.trySnapshot("unused")
	b.ok("snapshot of the unused volume", err)
	v.use("a")
	b.has(v.file("a"), last) // its layers have become one image
	b.ok("snapshot", snap())
	v.leave("a")
	v.remove()
	for i, id := range snapshots {
		restored := b.create(fmt.Sprint("restored", i), 16*mib, v.access, fromSnapshot(id))
		b.has(restored.use("a"), data[i])
		restored.leave("a")
		restored.remove()
		b.deleteSnapshot(id)
	}
	b.deleteSnapshot(pool.ID(pool.Snapshots, "node-1", "unused"))
	b.isClean()
}

// A volume that is always in use can have any number of snapshots, one after another, as long as few
// of them exist: layers that no snapshot needs are merged while the volume is in use. All snapshots
// have their data, and the device has only the files of the layers.
func TestKernelMergedLayers(t *testing.T) {
	b := newBed(t, ublktest.Once)
	b.start("--overcommit", "8") // on tmpfs
	v := b.create("data", 16*mib, blockAccess(writers), layered)
	v.use("a")
	all := make([]byte, 16*mib)
	kept := map[int][]byte{}
	ids := map[int]string{}
	check := func(i int) {
		restored := b.create(fmt.Sprint("restored", i), 16*mib, v.access, layered, fromSnapshot(ids[i]))
		b.has(restored.use("a"), kept[i])
		restored.leave("a")
		restored.remove()
	}
	drop := func(i int) {
		if i%2 == 0 {
			check(i)
		}
		b.deleteSnapshot(ids[i])
		delete(kept, i)
	}
	for i := range 11 {
		copy(all[i%8*mib:], content(uint64(50+i), 3*mib))
		b.put(v.file("a"), all)
		kept[i], ids[i] = bytes.Clone(all), v.snapshot(fmt.Sprint("s", i))
		if old := i - 4; old > 2 { // the snapshots 0 and 2 stay
			drop(old)
		} else if i == 3 {
			drop(1)
		}
	}
	b.has(v.file("a"), all)
	b.layersAre(v, len(kept)+1)
	b.server.end(unix.SIGKILL) // the next server finds the layers of the device
	b.serve()
	b.has(v.file("a"), all)
	v.leave("a")
	v.use("a")
	b.has(v.file("a"), all)
	for i := range kept {
		drop(i)
	}
	b.layersAre(v, 2)
	b.has(v.file("a"), all)
	v.leave("a")
	v.remove()
	b.isClean()
}

// The server is killed at random moments while layers of a volume in use are merged. The next server
// has the device with its data, and the driver completes the merge.
func TestCrashServerInMerge(t *testing.T) {
	b := newBed(t, ublktest.Once, ublktest.Soak)
	b.start("--overcommit", "8") // on tmpfs
	v := b.create("data", 16*mib, blockAccess(writers), layered)
	v.use("a")
	var ids []string
	all := make([]byte, 16*mib)
	ublktest.UntilHit(t, "kill the server during a merge", ublktest.Kills(t, 5, 100), 1, 400, func(i int) bool {
		for len(ids) < 6 { // the chain is long enough for two stores to be merged
			copy(all[rand.IntN(14)*mib:], content(rand.Uint64(), mib))
			b.put(v.file("a"), all)
			ids = append(ids, v.snapshot(fmt.Sprint("s", i, len(ids))))
		}
		timer := time.AfterFunc(ublktest.Moment(200*time.Millisecond, i), func() { _ = b.server.cmd.Process.Kill() })
		which := rand.IntN(len(ids) - 1)                                                                    // the layer of the newest one cannot be merged yet
		_, _ = b.controller.DeleteSnapshot(b.Context(), &csi.DeleteSnapshotRequest{SnapshotId: ids[which]}) // repeated below
		<-b.server.done
		timer.Stop()
		hit := b.layerFiles() > len(ids)
		b.serve()
		b.deleteSnapshot(ids[which])
		ids = slices.Delete(ids, which, which+1)
		b.has(v.file("a"), all)
		b.layersAre(v, len(ids)+1)
		return hit
	})
	for _, id := range ids {
		b.deleteSnapshot(id)
	}
	v.leave("a")
	b.has(v.use("a"), all)
	v.leave("a")
	v.remove()
	b.isClean()
}

// layerFiles returns the number of layers with a file.
func (b *bed) layerFiles() int {
	b.Helper()
	images, err := filepath.Glob(filepath.Join(b.pool, "layers/*.img"))
	b.ok("list", err)
	return len(images)
}

// layersAre waits until a volume and its device have at most some layers, and the pool no others.
func (b *bed) layersAre(v *volume, most int) {
	b.Helper()
	var images, device int
	b.until(fmt.Sprintf("there are %d layers", most), func() bool {
		images = b.layerFiles()
		devices, err := b.client.Devices(b.Context())
		b.ok("devices", err)
		device = 0
		for i := range devices {
			device = max(device, len(devices[i].Files))
		}
		return images <= most && device <= most
	}, func() string { return fmt.Sprintf("%d files, a device has %d", images, device) })
}

// A volume with layers grows when it is staged again. It can be copied in use before and after that.
func TestKernelLayersGrow(t *testing.T) {
	b := newBed(t, ublktest.Once)
	b.start() // on tmpfs
	fromStart := b.create("grows", 16*mib, mountAccess("ext4", writers), layered)
	b.checkGrowth(fromStart)
	later := b.create("later", 16*mib, mountAccess("ext4", writers))
	later.use("a")
	first := later.snapshot("first") // it gets a store
	later.leave("a")
	b.checkGrowth(later)
	b.deleteSnapshot(first)
	b.isClean()
}

// checkGrowth grows a volume with layers, and removes it.
func (b *bed) checkGrowth(v *volume) {
	b.Helper()
	v.use("a")
	data := content(8, mib)
	b.put(v.file("a"), data)
	snapshot := v.snapshot("s")
	before := v.usage("a")[0].GetTotal()
	b.refused("grow in use", v.grow("a", 48*mib), codes.FailedPrecondition, "staged again")
	b.ok("stage again", v.tryStage())
	v.leave("a")
	v.use("a")
	if after := v.usage("a")[0].GetTotal(); after < before+24*mib {
		b.Errorf("%d bytes, before %d", after, before)
	}
	b.has(v.file("a"), data)
	later := v.snapshot("later") // it has layers again
	restored := b.create("restored", 48*mib, v.access, fromSnapshot(snapshot))
	restored.use("a")
	b.has(restored.file("a"), data)
	for _, v := range []*volume{v, restored} {
		v.leave("a")
		v.remove()
	}
	b.deleteSnapshot(snapshot)
	b.deleteSnapshot(later)
}
