package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	csi "github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// startWith starts the driver with a pool that has space for n bytes.
func (b *bed) startWith(n int64) {
	b.Helper()
	var st unix.Statfs_t
	b.ok("statfs", unix.Statfs(filepath.Dir(b.pool), &st))
	b.start("--reserve", fmt.Sprint(int64(st.Bavail)*st.Bsize-n))
}

// A volume whose blocks are all in use grows if the pool has space for the rest.
func TestKernelGrowthOfFullVolume(t *testing.T) {
	b := newBed(t, ublktest.Once)
	b.startWith(80 * mib) // on tmpfs
	for _, provisioning := range []string{"thin", "thick"} {
		v := b.create(provisioning, 48*mib, blockAccess(oneWriter), func(req *csi.CreateVolumeRequest) {
			req.Parameters = map[string]string{"provisioning": provisioning}
		})
		data := content(3, 48*mib)
		b.put(v.use("a"), data)
		b.ok("grow", v.grow("a", 64*mib))
		b.has(v.file("a"), data)
		b.refused("grow beyond the pool", v.grow("a", 96*mib), codes.ResourceExhausted, "capacity_range")
		v.leave("a")
		v.remove()
	}
	b.isClean()
}

// crowd is a number of pods. kubelet allows 110 on a node.
const crowd = 60

// If the file system of the pool is full, volumes and snapshots can be used further, and deleted.
func TestKernelFullPool(t *testing.T) {
	b := newBed(t, ublktest.OldestAndNewest)
	b.pool = filepath.Join(b.dir, "full")
	b.ok("mkdir", os.Mkdir(b.pool, 0o700))
	b.tool("mount", "-t", "tmpfs", "-o", "size=48m,mode=0700", "none", b.pool)
	b.Cleanup(func() {
		b.driver.end(unix.SIGTERM) // it has the pool open
		b.devicesAre(0)
		b.tool("umount", b.pool)
	})
	b.start("--overcommit", "8")
	v := b.create("data", 32*mib, blockAccess(writers))
	data := content(3, 16*mib)
	b.put(v.use("a"), data)
	snapshot := v.snapshot("s")
	other := b.create("other", 32*mib, blockAccess(writers))
	// The record of a volume with many pods has several blocks.
	crowded := b.create("crowded", 32*mib, blockAccess(writers))
	crowded.use("0")
	pod := func(i int) string { return fmt.Sprintf("%d-%s", i, strings.Repeat("x", 100)) }
	for i := range crowd {
		b.ok("publish", crowded.tryPublish(pod(i), false, crowded.access))
	}
	files := []string{filepath.Join(b.pool, "file of others"), filepath.Join(b.pool, "its end")}
	for i, size := range []int{64 * mib, 4096} { // the second takes what the first leaves of its last block
		if err := os.WriteFile(files[i], make([]byte, size), 0o600); !errors.Is(err, unix.ENOSPC) {
			t.Fatalf("fill the pool: error %v", err)
		}
	}
	_, err := b.controller.CreateVolume(b.Context(), creation("more", 16*mib, v.access))
	b.refused("a new volume", err, codes.ResourceExhausted, "")
	b.ok("publish", v.tryPublish("b", false, v.access))
	b.has(v.file("b"), data)
	b.ok("unpublish", v.tryUnpublish("b"))
	for i := range crowd {
		b.ok("unpublish one of many", crowded.tryUnpublish(pod(i)))
		switch i { // a small record changes in between
		case crowd / 3:
			b.ok("publish", v.tryPublish("b", false, v.access))
		case 2 * crowd / 3:
			b.ok("unpublish", v.tryUnpublish("b"))
		}
	}
	b.driver.end(unix.SIGKILL)
	b.start("--overcommit", "8")
	v.leave("a")
	crowded.leave("0")
	crowded.remove()
	other.remove()
	b.deleteSnapshot(snapshot)
	v.remove()
	for _, path := range files {
		b.ok("remove", os.Remove(path))
	}
	b.isClean()
}

// A snapshot that shares blocks with a thick volume needs space for the changes of the volume.
func TestKernelThickSnapshotSpace(t *testing.T) {
	b := newBed(t, ublktest.Once, ublktest.ScratchDisk)
	b.poolOnXFS()
	b.startWith(80 * mib)
	v := b.create("data", 32*mib, blockAccess(writers), func(req *csi.CreateVolumeRequest) {
		req.Parameters = map[string]string{"provisioning": "thick"}
	})
	b.put(v.use("a"), content(3, 32*mib))
	snapshot := v.snapshot("s")
	_, err := v.trySnapshot("more")
	b.refused("a snapshot without space", err, codes.ResourceExhausted, "reserves")
	b.deleteSnapshot(snapshot)
	snapshot = v.snapshot("more")
	b.put(v.file("a"), content(4, 32*mib))
	v.leave("a")
	v.remove()
	b.deleteSnapshot(snapshot)
	b.isClean()
}
