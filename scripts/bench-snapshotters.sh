#!/usr/bin/env bash
# bench-snapshotters.sh [KERNEL]   run containerd's benchmark of snapshotters with overlayfs, native, devmapper and ublk-loop
#
# The benchmark makes 16 layers of files, each on the one before, and prints the time for all of them. KERNEL is uml if it is
# not given. containerd cannot run the benchmark with its erofs snapshotter, which returns mounts for its mount manager.
set -euo pipefail

here=$(dirname "$(realpath "$0")")
containerd=github.com/containerd/containerd/v2
version=v2.2.9 # that of the snapshotter (cmd/ublk-loop-snapshotter/go.mod)
suite=core/snapshots/benchsuite

# Write the benchmarks that containerd lacks: a proxy snapshotter, and devmapper with the type of its file system, without
# which it refuses to start.
more_benchmarks() {
	cat <<'GO'
package benchsuite

import (
	"context"
	"flag"
	"testing"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/containerd/containerd/v2/core/snapshots/proxy"
	"github.com/containerd/containerd/v2/plugins/snapshots/devmapper"
)

var address = flag.String("proxy.address", "", "socket of a proxy snapshotter")

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
	GOFLAGS=-mod=mod CGO_ENABLED=0 go -C "$source" test -c -o "$1" "./$suite" >&2
}

main() {
	work=$(mktemp -d)
	trap 'rm -rf "$work"' EXIT
	"$here/setup.sh"
	make -s -C "$here/.." build build-snapshotter BIN="$work"
	build "$work/benchsuite.test"
	"$here/vm.sh" run "${1:-uml}" --memory 3000 --timeout 3000 --disk 6G --disk 6G --disk 200M --file "$work/benchsuite.test" \
		--file "$work/ublk-loop:/usr/bin/ublk-loop" --file "$work/ublk-loop-snapshotter:/usr/bin/ublk-loop-snapshotter" \
		--file "$here/bench-snapshotters-guest.sh" -- /vm/files/bench-snapshotters-guest.sh
}

main "$@"
