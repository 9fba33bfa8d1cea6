package main

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/cmd/ublk-loop-snapshotter/snapshotter"
	"github.com/ublk-loop/ublk-loop/loop"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// A mount that containerd got never refers to another device, even if the server has
// ended and its successor makes devices.
func TestKernelSnapshotterNumber(t *testing.T) {
	ctx := context.Background()
	b := newBed(t, ublktest.Own, ublktest.OldestAndNewest)
	s, err := snapshotter.New(ctx, snapshotter.Options{Root: filepath.Join(b.dir, "own"), Size: 16 << 20, Settings: b.settings()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	image, other := filepath.Join(b.images, "image"), filepath.Join(b.images, "other")
	for _, path := range []string{image, other} {
		b.tool("truncate", "-s", "16M", path)
		b.tool("mke2fs", "-q", "-t", "ext4", path)
	}
	told, err := s.Prepare(ctx, "a", "", snapshots.WithLabels(map[string]string{snapshotter.ImageLabel: image}))
	if err != nil {
		t.Fatal(err)
	}
	b.server.end(unix.SIGTERM)
	b.serve()
	file, err := loop.OpenPath(other)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	lease, err := b.client.Add(ctx, client.AddRequest{File: other}, client.Files{File: file})
	if err != nil {
		t.Fatal(err)
	}
	if lease.Device.Device == told[0].Source {
		t.Errorf("%s is another's", told[0].Source)
	}
	if again, err := s.Mounts(ctx, "a"); err != nil || again[0].Source == lease.Device.Device {
		t.Errorf("mounts are %+v, error %v", again, err)
	}
	b.devicesAre(2)
	if err := s.Remove(ctx, "a"); err != nil {
		t.Error(err)
	}
	b.devicesAre(1)
	lease.Close()
}
