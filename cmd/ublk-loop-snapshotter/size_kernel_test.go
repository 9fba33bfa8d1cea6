package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/cmd/ublk-loop-snapshotter/snapshotter"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// A snapshot has the size that containerd's label asks for, and the content of its
// parent.
func TestKernelSnapshotterSize(t *testing.T) {
	b := newBed(t, ublktest.Own, ublktest.ScratchDisk)
	b.mountDisk("xfs")
	b.testSizes(func(want int64) int64 { return want })
}

// So does a snapshot that is a store. Its device is not smaller than its parent's.
func TestKernelSnapshotterSizeOfStore(t *testing.T) {
	b := newBed(t, ublktest.Own, ublktest.ScratchDisk)
	b.mountDisk("ext4")
	b.testSizes(func(want int64) int64 { return max(want, 64<<20) })
}

// testSizes tests sizes that labels ask for. deviceSize returns the size of the device for
// that of the file system.
func (b *bed) testSizes(deviceSize func(want int64) int64) {
	b.Helper()
	ctx := context.Background()
	root := filepath.Join(os.Getenv("TMPDIR"), "own")
	const mib = 1 << 20
	s, err := snapshotter.New(ctx, snapshotter.Options{Root: root, Size: 64 * mib, MaxSize: 128 * mib, Settings: b.settings()})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	dir := b.mounted(s.Prepare(ctx, "active", ""))
	b.write(filepath.Join(dir, "data"), strings.Repeat("x", 16*mib))
	b.tool("umount", dir)
	if err := s.Commit(ctx, "parent", "active"); err != nil {
		b.Fatal(err)
	}
	with := func(size string) snapshots.Opt {
		return snapshots.WithLabels(map[string]string{snapshotter.SizeLabel: size})
	}
	for label, size := range map[string]int64{"33554432": 32 * mib, "100000000": 100_000_000 / 4096 * 4096} {
		b.hasSize(s, "parent", with(label), size, deviceSize(size))
	}
	for label, text := range map[string]string{"8388608": "too few for the content", "134217729": "--max-size", "1G": "not a positive number"} {
		if _, err := s.Prepare(ctx, "child", "parent", with(label)); err == nil || !strings.Contains(err.Error(), snapshotter.SizeLabel) || !strings.Contains(err.Error(), text) {
			b.Errorf("%s: %v", label, err)
		}
		if _, err := s.Stat(ctx, "child"); !errdefs.IsNotFound(err) {
			b.Errorf("%s: the child is %v", label, err)
		}
	}
	// A layer has the usual size, whatever the image's author asks for.
	layer := snapshots.WithLabels(map[string]string{snapshotter.SizeLabel: "33554432", "containerd.io/snapshot.ref": "sha256:0"})
	b.hasSize(s, "parent", layer, 64*mib, 64*mib)
	if names, err := os.ReadDir(filepath.Join(root, "snapshots")); err != nil || len(names) != 1 {
		b.Errorf("the snapshots are %v, error %v", names, err)
	}
}

// hasSize checks a child with a label: its size, its content, that it can be filled, and
// that its usage is what it wrote.
func (b *bed) hasSize(s *snapshotter.Snapshotter, parent string, label snapshots.Opt, want, device int64) {
	b.Helper()
	ctx := context.Background()
	dir := b.mounted(s.Prepare(ctx, "child", parent, label))
	if size := b.devices()[0].Size; size != uint64(device) {
		b.Errorf("the device has %d bytes, want %d", size, device)
	}
	if text, err := os.ReadFile(filepath.Join(dir, "data")); err != nil || len(text) != 16<<20 {
		b.Errorf("the child has %d bytes of data, error %v", len(text), err)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil || int64(st.Blocks)*st.Bsize > want || int64(st.Blocks)*st.Bsize < want/2 {
		b.Errorf("the file system has %d blocks, error %v", st.Blocks, err)
	}
	const written = 4 << 20
	b.write(filepath.Join(dir, "own"), strings.Repeat("y", written))
	if err := os.WriteFile(filepath.Join(dir, "more"), make([]byte, want), 0o600); err == nil {
		b.Errorf("%d more bytes fit into %d", want, want)
	}
	if err := os.Remove(filepath.Join(dir, "more")); err != nil {
		b.Error(err)
	}
	b.tool("umount", dir)
	usage, err := s.Usage(ctx, "child")
	b.Logf("a child of %d bytes uses %+v", want, usage)
	if err != nil || usage.Size < written {
		b.Errorf("the usage is %+v, error %v", usage, err)
	}
	if err := s.Remove(ctx, "child"); err != nil {
		b.Error(err)
	}
}
