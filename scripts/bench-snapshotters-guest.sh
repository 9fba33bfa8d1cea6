#!/usr/bin/env bash
# Part of bench-snapshotters.sh that runs in the virtual machine.
set -euo pipefail

# Run the benchmark $1 with further flags.
bench() { /vm/files/benchsuite.test -test.run '^$' -test.benchtime 3x -test.bench "^Benchmark$1\$" "${@:2}" | grep '^Benchmark'; }

# Run the benchmark of ublk-loop with the directory $1.
bench_ublk_loop() {
	local snapshotter
	chmod 700 "$1"
	ublk-loop snapshotter --root "$1" --address /run/snapshotter.sock 2>>/run/snapshotter.log &
	snapshotter=$!
	until [[ -S /run/snapshotter.sock ]]; do sleep 0.1; done
	bench Proxy -proxy.address /run/snapshotter.sock
	kill "$snapshotter"
	wait "$snapshotter" || true
	rm -f /run/snapshotter.sock
}

modprobe -a xfs overlay dm-thin-pool
mkfs.xfs -q /dev/vda
mount /dev/vda /mnt
mkdir /mnt/{overlay,native,devmapper,ublk-loop}
ublk-loop serve 2>/run/serve.log &
until [[ -S /run/ublk-loop/control.sock ]]; do sleep 0.1; done
echo 'on xfs:'
bench Overlay -overlay.rootPath /mnt/overlay
bench Native -native.rootPath /mnt/native
bench_ublk_loop /mnt/ublk-loop
echo 'ublk-loop on ext4:'
mke2fs -q -t ext4 /dev/vdb
mkdir /run/ext4
mount /dev/vdb /run/ext4
bench_ublk_loop /run/ext4
umount /run/ext4
echo 'devmapper:'
export DM_DISABLE_UDEV=1
dmsetup create pool --table "0 $(blockdev --getsz /dev/vdb) thin-pool /dev/vdc /dev/vdb 128 32768 1 skip_block_zeroing"
bench Thin -dm.thinPoolDev pool -dm.rootPath /mnt/devmapper
