package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"

	"github.com/ublk-loop/ublk-loop/cmd/ublk-loop-snapshotter/snapshotter"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// A writable image belongs to one snapshot, and keeps the written data. Any number of
// snapshots can share a read-only image.
func TestKernelSnapshotterImage(t *testing.T) {
	ctx := context.Background()
	b := newBed(t, ublktest.Own, ublktest.OldestAndNewest)
	settings := b.settings()
	s, err := snapshotter.New(ctx, snapshotter.Options{Root: filepath.Join(b.dir, "own"), Size: 16 << 20, Settings: settings})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	image := filepath.Join(b.images, "image")
	b.tool("truncate", "-s", "16M", image)
	b.tool("mke2fs", "-q", "-t", "ext4", image)
	with := func(options string) snapshots.Opt {
		return snapshots.WithLabels(map[string]string{snapshotter.ImageLabel: image, snapshotter.OptionsLabel: options})
	}

	other := snapshots.WithLabels(map[string]string{snapshotter.ImageLabel: image, snapshotter.FSTypeLabel: "xfs"})
	if _, err := s.Prepare(ctx, "other", "", other); err == nil || !strings.Contains(err.Error(), "holds ext4, not xfs") {
		t.Errorf("another file system: %v", err)
	}
	b.devicesAre(0)
	dir := b.mounted(s.Prepare(ctx, "first", "", with("rw,noatime")))
	b.write(filepath.Join(dir, "written"), "by the first")
	wait := settings.AttachTimeout
	settings.AttachTimeout = time.Second
	for _, options := range []string{"rw", "ro"} {
		if _, err := s.Prepare(ctx, "second", "", with(options)); !errdefs.IsUnavailable(err) {
			t.Errorf("a second one, %s: %v", options, err)
		}
	}
	settings.AttachTimeout = wait
	b.tool("umount", dir)
	if err := s.Remove(ctx, "first"); err != nil {
		t.Error(err)
	}
	b.devicesAre(0)

	for _, key := range []string{"second", "third"} {
		dir := b.mounted(s.Prepare(ctx, key, "", with("ro")))
		if text, err := os.ReadFile(filepath.Join(dir, "written")); err != nil || string(text) != "by the first" {
			t.Errorf("%s finds %q, error %v", key, text, err)
		}
		if err := os.WriteFile(filepath.Join(dir, "written"), nil, 0o600); err == nil {
			t.Errorf("%s can write", key)
		}
		defer b.tool("umount", dir)
	}
	b.devicesAre(2)
	if mounts, err := s.Mounts(ctx, "third"); err != nil || !strings.HasPrefix(mounts[0].Source, "/dev/ublkb") {
		t.Errorf("mounts are %+v, error %v", mounts, err)
	}
	b.devicesAre(2)
}

// The blocks of an image are checked against the root hash of a label.
func TestKernelSnapshotterVerity(t *testing.T) {
	ctx := context.Background()
	b := newBed(t, ublktest.Own)
	settings := b.settings()
	settings.VerityImages = []string{b.images}
	s, err := snapshotter.New(ctx, snapshotter.Options{Root: filepath.Join(b.dir, "own"), Size: 16 << 20, Settings: settings})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	image := filepath.Join(b.images, "image")
	b.tool("truncate", "-s", "16M", image)
	b.tool("mke2fs", "-q", "-t", "ext4", "-b", "4096", image)
	root := ""
	for line := range strings.Lines(b.tool("veritysetup", "format", image, image, "--hash-offset=16777216", "--data-blocks=4096")) {
		if value, found := strings.CutPrefix(line, "Root hash:"); found {
			root = strings.TrimSpace(value)
		}
	}
	if root == "" {
		t.Fatal("veritysetup prints no root hash")
	}
	with := func(root string) snapshots.Opt {
		return snapshots.WithLabels(map[string]string{snapshotter.ImageLabel: image, "containerd.io/snapshot/ublk-loop.verity.roothash": root})
	}
	for _, wrong := range []string{"none", strings.Repeat("0", 64)} {
		if _, err := s.Prepare(ctx, "wrong", "", with(wrong)); !errdefs.IsInvalidArgument(err) {
			t.Errorf("root hash %s: %v", wrong, err)
		}
	}
	b.devicesAre(0)
	dir := b.mounted(s.Prepare(ctx, "good", "", with(root)))
	if _, err := os.Stat(filepath.Join(dir, "lost+found")); err != nil {
		t.Error(err)
	}
	b.tool("umount", dir)
	if err := s.Remove(ctx, "good"); err != nil {
		t.Error(err)
	}
	b.devicesAre(0)
}

// Several snapshots write over one image, which does not change. Two kinds of stores take the
// changes: an encrypted one ends with its snapshot, and one in a file stays.
func TestKernelSnapshotterCow(t *testing.T) {
	ctx := context.Background()
	b := newBed(t, ublktest.Own)
	settings := b.settings()
	stores, transient := filepath.Join(b.dir, "stores"), filepath.Join(b.dir, "transient")
	for _, dir := range []string{stores, transient} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	settings.WritableImages, settings.AllowedStores, settings.TransientStores = nil, []string{stores}, transient
	s, err := snapshotter.New(ctx, snapshotter.Options{Root: filepath.Join(b.dir, "own"), Size: 16 << 20, Settings: settings})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	image, store := filepath.Join(b.images, "image"), filepath.Join(stores, "store")
	b.tool("truncate", "-s", "16M", image)
	b.tool("mke2fs", "-q", "-t", "ext4", image)
	before, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	b.tool("ublk-loop", "cow", "create", store, "--origin", image)
	with := func(cow, encrypt string) snapshots.Opt {
		return snapshots.WithLabels(map[string]string{
			snapshotter.ImageLabel: image, snapshotter.OptionsLabel: "rw",
			"containerd.io/snapshot/ublk-loop.cow": cow, "containerd.io/snapshot/ublk-loop.encrypt": encrypt,
		})
	}
	var ends []func()
	for _, key := range []string{"first", "second"} {
		entries, end := b.writesTo(s, key, with("transient", "ephemeral"))
		if len(entries) != 1 {
			t.Errorf("%s finds %v, want lost+found", key, entries)
		}
		ends = append(ends, end)
	}
	for _, end := range ends {
		end()
	}
	for i, key := range []string{"third", "fourth"} {
		entries, end := b.writesTo(s, key, with("file:"+store, "none"))
		if len(entries) != 1+i {
			t.Errorf("%s finds %v", key, entries)
		}
		end()
	}
	b.devicesAre(0)
	if after, err := os.ReadFile(image); err != nil || !bytes.Equal(after, before) {
		t.Errorf("the image has changed, error %v", err)
	}
	if _, err := s.Prepare(ctx, "outside", "", with("file:"+image, "none")); !errdefs.IsInvalidArgument(err) {
		t.Errorf("a store outside of allowed_stores: %v", err)
	}
}

// writesTo prepares a snapshot, writes a file with the key's name to it, and returns what was there
// before. The function end unmounts and removes the snapshot.
func (b *bed) writesTo(s *snapshotter.Snapshotter, key string, use snapshots.Opt) (before []os.DirEntry, end func()) {
	b.Helper()
	dir := b.mounted(s.Prepare(context.Background(), key, "", use))
	before, err := os.ReadDir(dir)
	if err != nil {
		b.Fatal(err)
	}
	b.write(filepath.Join(dir, key), "by "+key)
	return before, func() {
		b.Helper()
		b.tool("umount", dir)
		if err := s.Remove(context.Background(), key); err != nil {
			b.Error(err)
		}
	}
}
