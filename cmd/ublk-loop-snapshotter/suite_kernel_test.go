package main

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/testsuite"
	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/cmd/ublk-loop-snapshotter/snapshotter"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// The snapshotter passes containerd's own tests of snapshotters.
func TestKernelSnapshotterSuite(t *testing.T) {
	b := newBed(t, ublktest.Own, ublktest.ScratchDisk, ublktest.OldestAndNewest)
	b.mountDisk("xfs")
	b.passesSuite(t)
}

// It also passes them where files cannot share blocks.
func TestKernelSnapshotterSuiteWithStores(t *testing.T) {
	b := newBed(t, ublktest.Own, ublktest.ScratchDisk, ublktest.Once, ublktest.Long)
	b.mountDisk("ext4")
	b.passesSuite(t)
}

func (b *bed) passesSuite(t *testing.T) {
	testsuite.SnapshotterSuite(t, "ublk-loop", func(ctx context.Context, root string) (snapshots.Snapshotter, func() error, error) {
		s, err := snapshotter.New(ctx, snapshotter.Options{
			Root: filepath.Join(root, "own"), Size: 16 << 20, Settings: b.settings(),
		})
		if err != nil {
			return nil, nil, err
		}
		return s, s.Close, nil
	})
}

// mountDisk puts temporary files on the machine's disk, formatted as xfs, on which files
// can share blocks, or as ext4, on which they cannot.
func (b *bed) mountDisk(fsType string) {
	b.Helper()
	disk, dir := os.Getenv("UBLK_LOOP_DISK"), filepath.Join(b.dir, "disk")
	b.mkdir(dir)
	if fsType == "ext4" {
		b.tool("mkfs.ext4", "-q", "-F", disk)
	} else {
		b.tool("mkfs.xfs", "-q", "-f", disk)
	}
	b.tool("mount", disk, dir)
	b.Setenv("TMPDIR", dir)
	b.Cleanup(func() {
		b.devicesAre(0)
		// The server closes its files a moment after the device has gone.
		var err error
		b.until("the disk is unmounted", func() bool {
			err = unix.Unmount(dir, 0)
			return err == nil
		}, func() string { return err.Error() })
	})
}
