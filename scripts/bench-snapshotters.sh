#!/usr/bin/env bash
# bench-snapshotters.sh [--icount] [KERNEL]   run containerd's benchmark of snapshotters with overlayfs, native, erofs,
#                                             devmapper and ublk-loop
#
# The benchmark makes 16 layers of files, each on the one before, and prints the time for all of them. --icount counts
# instructions in place of time, on disks in memory, for figures that repeat on a busy machine. KERNEL is then 7.3, otherwise
# uml, if it is not given.
set -euo pipefail

here=$(dirname "$(realpath "$0")")
containerd=github.com/containerd/containerd/v2
version=v2.4.2
suite=core/snapshots/benchsuite

# Write the benchmarks that containerd lacks: a proxy snapshotter, devmapper with the type of its file system, without
# which it refuses to start, and erofs. The erofs snapshotter returns mounts for containerd's mount manager. All others
# return mounts for mount(2), as the manager says with ErrNotImplemented.
more_benchmarks() {
	cat <<'GO'
package benchsuite

import (
	"context"
	"errors"
	"flag"
	"path/filepath"
	"testing"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	bolt "go.etcd.io/bbolt"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/mount/manager"
	"github.com/containerd/containerd/v2/core/snapshots/proxy"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	erofsmount "github.com/containerd/containerd/v2/plugins/mount/erofs"
	"github.com/containerd/containerd/v2/plugins/snapshots/devmapper"
	"github.com/containerd/containerd/v2/plugins/snapshots/erofs"
	"github.com/containerd/errdefs"
)

var (
	address   = flag.String("proxy.address", "", "socket of a proxy snapshotter")
	erofsRoot = flag.String("erofs.rootPath", "", "directory of the erofs snapshotter")
	erofsSize = flag.Int64("erofs.size", 0, "size of the erofs snapshotter's writable layer, 0 for a directory")
)

// mounts is the mount manager of the erofs benchmark.
var mounts mount.Manager

// withMounts takes the place of mount.WithTempMount in the benchmark.
func withMounts(ctx context.Context, list []mount.Mount, use func(root string) error) (err error) {
	if mounts == nil {
		return mount.WithTempMount(ctx, list, use)
	}
	ctx = namespaces.WithNamespace(ctx, "bench")
	active, err := mounts.Activate(ctx, "layer", list)
	if errdefs.IsNotImplemented(err) {
		return mount.WithTempMount(ctx, list, use)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, mounts.Deactivate(ctx, "layer")) }()
	return mount.WithTempMount(ctx, active.System, use)
}

func BenchmarkErofs(b *testing.B) {
	db, err := bolt.Open(filepath.Join(b.TempDir(), "mounts.db"), 0o600, nil)
	if err != nil {
		b.Fatal(err)
	}
	mounts, err = manager.NewManager(db, b.TempDir(), manager.WithAllowedRoot(*erofsRoot),
		manager.WithMountHandler("erofs", erofsmount.NewErofsMountHandler()))
	if err != nil {
		b.Fatal(err)
	}
	s, err := erofs.NewSnapshotter(*erofsRoot, erofs.WithDefaultSize(*erofsSize))
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	benchmarkSnapshotter(b, s)
}

func BenchmarkProxy(b *testing.B) {
	conn, err := grpc.NewClient("unix://"+*address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	benchmarkSnapshotter(b, proxy.NewSnapshotter(snapshotsapi.NewSnapshotsClient(conn), "proxy"))
}

func BenchmarkThin(b *testing.B) {
	config := &devmapper.Config{PoolName: dmPoolDev, RootPath: dmRootPath, BaseImageSize: "32Mb", FileSystemType: "ext4"}
	s, err := devmapper.NewSnapshotter(context.Background(), config)
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	benchmarkSnapshotter(b, s)
}
GO
}

# Build the benchmarks as the program $1.
build() {
	local source=$work/source directory
	directory=$(GOFLAGS='' go mod download -json "$containerd@$version" | sed -n 's/.*"Dir": "\(.*\)".*/\1/p')
	cp -r "$directory" "$source"
	chmod -R u+w "$source"
	more_benchmarks >"$source/$suite/more_test.go"
	sed -i 's/mount\.WithTempMount(ctx, mounts,/withMounts(ctx, mounts,/; /core\/mount"$/d' "$source/$suite/benchmark_test.go"
	GOFLAGS=-mod=mod CGO_ENABLED=0 go -C "$source" test -c -o "$1" "./$suite" >&2
}

main() {
	local kernel=uml machine=(--disk 6G --disk 6G --disk 200M) disks=/dev/vd rounds=3
	if [[ ${1:-} == --icount ]]; then
		kernel=7.3 machine=(--icount) disks=memory rounds=1
		shift
	fi
	work=$(mktemp -d)
	trap 'rm -rf "$work"' EXIT
	"$here/setup.sh"
	make -s -C "$here/.." build build-snapshotter BIN="$work"
	build "$work/benchsuite.test"
	"$here/vm.sh" run "${1:-$kernel}" "${machine[@]}" --memory 4000 --timeout 3000 --file "$work/benchsuite.test" \
		--file "$work/ublk-loop:/usr/bin/ublk-loop" --file "$work/ublk-loop-snapshotter:/usr/bin/ublk-loop-snapshotter" \
		--file "$here/bench-snapshotters-guest.sh" -- /vm/files/bench-snapshotters-guest.sh "$disks" "$rounds"
}

main "$@"
