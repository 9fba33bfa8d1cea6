package main

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/cmd/ublk-loop-snapshotter/snapshotter"
	"github.com/ublk-loop/ublk-loop/internal/oci"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// A child shares its parent's blocks until it writes, if the file system can do that. A
// mounted snapshot can be neither committed nor removed.
func TestKernelSnapshotterShares(t *testing.T) {
	ctx := context.Background()
	b := newBed(t, ublktest.Own, ublktest.ScratchDisk, ublktest.OldestAndNewest)
	b.mountDisk("xfs")
	settings := b.settings()
	root := filepath.Join(os.Getenv("TMPDIR"), "own")
	s, err := snapshotter.New(ctx, snapshotter.Options{Root: root, Size: 64 << 20, Settings: settings})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	data := make([]byte, 16<<20)
	for i := range data {
		data[i] = byte(i>>10) | 1
	}
	b.makesParent(s, settings, data)
	b.sharesWithChild(s, root, data)
	for _, key := range []string{"child", "parent"} {
		if err := s.Remove(ctx, key); err != nil {
			t.Error(err)
		}
	}
	if err := s.Walk(ctx, func(context.Context, snapshots.Info) error { return unix.EEXIST }); err != nil {
		t.Errorf("there still are snapshots: %v", err)
	}
	if names, err := os.ReadDir(filepath.Join(root, "snapshots")); err != nil || len(names) > 0 {
		t.Errorf("files are left: %v, %v", names, err)
	}
}

// makesParent commits a snapshot with data, which is refused while it is mounted.
func (b *bed) makesParent(s *snapshotter.Snapshotter, settings *oci.Settings, data []byte) {
	b.Helper()
	ctx := context.Background()
	dir := b.mounted(s.Prepare(ctx, "active", ""))
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		b.Errorf("a snapshot without a parent has %v, error %v", entries, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "data"), data, 0o600); err != nil {
		b.Fatal(err)
	}
	wait := settings.AttachTimeout
	settings.AttachTimeout = time.Second
	if err := s.Commit(ctx, "parent", "active"); !errdefs.IsFailedPrecondition(err) {
		b.Errorf("commit while mounted: %v", err)
	}
	settings.AttachTimeout = wait
	if err := s.Remove(ctx, "active"); !errdefs.IsFailedPrecondition(err) {
		b.Errorf("remove while mounted: %v", err)
	}
	b.tool("umount", dir)
	if err := s.Commit(ctx, "parent", "active"); err != nil {
		b.Fatal(err)
	}
	parent, err := s.Usage(ctx, "parent")
	if err != nil || parent.Size < int64(len(data)) || parent.Size > 3*int64(len(data)) {
		b.Errorf("the parent takes %d bytes, error %v", parent.Size, err)
	}
}

// sharesWithChild checks that a child of the parent has its data, and takes little space.
func (b *bed) sharesWithChild(s *snapshotter.Snapshotter, root string, data []byte) {
	b.Helper()
	ctx := context.Background()
	before := b.free(root)
	dir := b.mounted(s.Prepare(ctx, "child", "parent"))
	if took := before - b.free(root); took > int64(len(data))/4 {
		b.Errorf("a child of a parent with %d bytes takes %d", len(data), took)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "data")); err != nil || string(got) != string(data) {
		b.Errorf("the child has other data, error %v", err)
	}
	const written = 2 << 20
	if err := os.WriteFile(filepath.Join(dir, "own"), data[:written], 0o600); err != nil {
		b.Error(err)
	}
	b.tool("umount", dir)
	// The usage is what the child has in addition to its parent.
	if usage, err := s.Usage(ctx, "child"); err != nil || usage.Size < written || usage.Size > int64(len(data))/2 || usage.Inodes != 1 {
		b.Errorf("the child takes %+v, error %v", usage, err)
	}
}

// mounted mounts the snapshot that the snapshotter returned.
func (b *bed) mounted(m []mount.Mount, err error) string {
	b.Helper()
	dir := b.TempDir()
	if err == nil {
		err = mount.All(m, dir)
	}
	if err != nil {
		b.Fatal(err)
	}
	return dir
}

// free writes all data to disk, and returns the free bytes of the file system.
func (b *bed) free(path string) int64 {
	b.Helper()
	unix.Sync()
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		b.Fatal(err)
	}
	return int64(st.Bfree) * st.Bsize
}
