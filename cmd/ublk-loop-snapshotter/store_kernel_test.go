package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/cmd/ublk-loop-snapshotter/snapshotter"
	"github.com/ublk-loop/ublk-loop/internal/oci"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// onExt4 returns a snapshotter on a file system whose files cannot share blocks.
func (b *bed) onExt4() (s *snapshotter.Snapshotter, settings *oci.Settings, root string) {
	b.Helper()
	b.mountDisk("ext4")
	root = filepath.Join(os.Getenv("TMPDIR"), "own")
	settings = b.settings()
	s, err := snapshotter.New(context.Background(), snapshotter.Options{Root: root, Size: 64 << 20, Settings: settings})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = s.Close() })
	return s, settings, root
}

// On a file system whose files cannot share blocks, a child is a store of its changes.
func TestKernelSnapshotterStores(t *testing.T) {
	ctx := context.Background()
	b := newBed(t, ublktest.Own, ublktest.ScratchDisk, ublktest.OldestAndNewest)
	s, settings, root := b.onExt4()
	data := make([]byte, 16<<20)
	for i := range data {
		data[i] = byte(i>>10) | 1
	}
	b.makesParent(s, settings, data)
	b.sharesWithChild(s, root, data)
	b.trims(s, data)
	b.siblingsDiffer(s)
	if err := s.Remove(ctx, "parent"); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("the parent of a child is removed: %v", err)
	}
	for _, key := range []string{"sibling", "child", "parent"} {
		if err := s.Remove(ctx, key); err != nil {
			t.Error(err)
		}
	}
	b.noFiles(root)
}

// trims checks that a child gets smaller when its deleted files are trimmed.
func (b *bed) trims(s *snapshotter.Snapshotter, data []byte) {
	b.Helper()
	ctx := context.Background()
	used := func() int64 {
		unix.Sync()
		usage, err := s.Usage(ctx, "child")
		if err != nil {
			b.Error(err)
		}
		return usage.Size
	}
	dir := b.mounted(s.Mounts(ctx, "child"))
	defer b.tool("umount", dir)
	large := filepath.Join(dir, "large")
	if err := os.WriteFile(large, data, 0o600); err != nil {
		b.Fatal(err)
	}
	with := used()
	if err := os.Remove(large); err != nil {
		b.Fatal(err)
	}
	unix.Sync()
	b.tool("fstrim", dir)
	if without := used(); with < int64(len(data)) || without > with-int64(len(data))/2 {
		b.Errorf("the child takes %d bytes with a file of %d, and %d without", with, len(data), without)
	}
}

// siblingsDiffer checks that children of a parent do not see each other's changes.
func (b *bed) siblingsDiffer(s *snapshotter.Snapshotter) {
	b.Helper()
	ctx := context.Background()
	child := b.mounted(s.Mounts(ctx, "child"))
	sibling := b.mounted(s.Prepare(ctx, "sibling", "parent"))
	b.write(filepath.Join(child, "data"), "of the child")
	unix.Sync()
	if text, err := os.ReadFile(filepath.Join(sibling, "data")); err != nil || len(text) != 16<<20 {
		b.Errorf("the sibling has %d bytes, error %v", len(text), err)
	}
	if _, err := os.Stat(filepath.Join(sibling, "own")); !errors.Is(err, os.ErrNotExist) {
		b.Errorf("the sibling has a file of the child: %v", err)
	}
	b.tool("umount", child)
	b.tool("umount", sibling)
}

// noFiles checks that a snapshotter has no file of a snapshot.
func (b *bed) noFiles(root string) {
	b.Helper()
	names, err := os.ReadDir(filepath.Join(root, "snapshots"))
	if err != nil || len(names) > 0 {
		b.Errorf("files are left: %v, %v", names, err)
	}
}

// Each parent has the files of its parents and its own, also when the stores are too many
// for one device.
func TestKernelSnapshotterChain(t *testing.T) {
	ctx := context.Background()
	b := newBed(t, ublktest.Own, ublktest.ScratchDisk)
	s, _, root := b.onExt4()
	const levels = 11
	parent := ""
	for i := range levels {
		dir := b.mounted(s.Prepare(ctx, "active", parent))
		b.write(filepath.Join(dir, fmt.Sprint(i)), fmt.Sprintf("of level %d\n", i))
		b.write(filepath.Join(dir, "last"), strings.Repeat(fmt.Sprintln(i), 50_000))
		b.tool("umount", dir)
		parent = fmt.Sprintf("level%d", i)
		if err := s.Commit(ctx, parent, "active"); err != nil {
			t.Fatal(err)
		}
	}
	for i := range levels {
		b.hasLevels(s, i)
	}
	b.flattened(root, levels)
	for i := levels - 1; i >= 0; i-- {
		if err := s.Remove(ctx, fmt.Sprintf("level%d", i)); err != nil {
			t.Error(err)
		}
	}
	b.noFiles(root)
}

// hasLevels checks the content of a level.
func (b *bed) hasLevels(s *snapshotter.Snapshotter, level int) {
	b.Helper()
	ctx := context.Background()
	dir := b.mounted(s.View(ctx, "view", fmt.Sprintf("level%d", level)))
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != level+2 {
		b.Errorf("level %d has %v, error %v", level, entries, err)
	}
	for i := range level + 1 {
		if text, err := os.ReadFile(filepath.Join(dir, fmt.Sprint(i))); err != nil || string(text) != fmt.Sprintf("of level %d\n", i) {
			b.Errorf("level %d has %q of level %d, error %v", level, text, i, err)
		}
	}
	if text, err := os.ReadFile(filepath.Join(dir, "last")); err != nil || string(text) != strings.Repeat(fmt.Sprintln(level), 50_000) {
		b.Errorf("level %d has %d other bytes, error %v", level, len(text), err)
	}
	b.tool("umount", dir)
	if err := s.Remove(ctx, "view"); err != nil {
		b.Error(err)
	}
}

// flattened checks that each device has at most eight stores: the first level and the
// ninth are images.
func (b *bed) flattened(root string, levels int) {
	b.Helper()
	stores, err := filepath.Glob(filepath.Join(root, "snapshots/*.cow"))
	all, _ := os.ReadDir(filepath.Join(root, "snapshots"))
	if err != nil || len(all) != levels || len(stores) != levels-2 {
		b.Errorf("%d files, %d of them stores, error %v, want %d and %d", len(all), len(stores), err, levels, levels-2)
	}
}

// A snapshot of a tree of stores is found again by the next snapshotter, with its device.
func TestKernelSnapshotterStoreAgain(t *testing.T) {
	ctx := context.Background()
	b := newBed(t, ublktest.Own, ublktest.ScratchDisk)
	s, _, root := b.onExt4()
	for i, parent := range []string{"", "level0"} {
		dir := b.mounted(s.Prepare(ctx, "active", parent))
		b.write(filepath.Join(dir, "content"), fmt.Sprint(i))
		b.tool("umount", dir)
		if err := s.Commit(ctx, fmt.Sprintf("level%d", i), "active"); err != nil {
			t.Fatal(err)
		}
	}
	dir := b.mounted(s.Prepare(ctx, "child", "level1"))
	b.write(filepath.Join(dir, "content"), "of the child")
	if err := s.Close(); err != nil { // its device is mounted and stays
		t.Fatal(err)
	}
	again, err := snapshotter.New(ctx, snapshotter.Options{Root: root, Size: 64 << 20, Settings: b.settings()})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if err := again.Remove(ctx, "child"); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("remove while mounted: %v", err)
	}
	before := b.devices()
	second := b.mounted(again.Mounts(ctx, "child"))
	if now := b.devices(); len(before) != 1 || len(now) != 1 || now[0].ID != before[0].ID {
		t.Errorf("the devices are %+v, were %+v", now, before)
	}
	if text, err := os.ReadFile(filepath.Join(second, "content")); err != nil || string(text) != "of the child" {
		t.Errorf("the child has %q, error %v", text, err)
	}
	b.tool("umount", second)
	b.tool("umount", dir)
	for _, key := range []string{"child", "level1", "level0"} {
		if err := again.Remove(ctx, key); err != nil {
			t.Error(err)
		}
	}
	if err := again.Walk(ctx, func(context.Context, snapshots.Info) error { return unix.EEXIST }); err != nil {
		t.Errorf("there still are snapshots: %v", err)
	}
	b.noFiles(root)
}
