#!/usr/bin/env bash
# bench-snapshotters-guest.sh DISKS ROUNDS   part of bench-snapshotters.sh that runs in the virtual machine
#
# DISKS is the start of the names of three disks, or "memory" for disks in memory.
set -euo pipefail

rounds=$2

# Run the benchmark $1 with further flags.
bench() { /vm/files/benchsuite.test -test.run '^$' -test.benchtime "${rounds}x" -test.bench "^Benchmark$1\$" "${@:2}" | grep '^Benchmark'; }

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

modprobe -a xfs overlay erofs loop dm-thin-pool
if [[ $1 == memory ]]; then
	modprobe brd rd_nr=3 rd_size=$((6 << 20))
	disks=(/dev/ram0 /dev/ram1 /dev/ram2)
else
	disks=("$1a" "$1b" "$1c")
fi
mkfs.xfs -q "${disks[0]}"
mount "${disks[0]}" /mnt
mkdir /mnt/{overlay,native,erofs,erofs-disk,devmapper,ublk-loop}
ublk-loop serve 2>/run/serve.log &
until [[ -S /run/ublk-loop/control.sock ]]; do sleep 0.1; done
echo 'on xfs:'
bench Overlay -overlay.rootPath /mnt/overlay
bench Native -native.rootPath /mnt/native
bench Erofs -erofs.rootPath /mnt/erofs
bench_ublk_loop /mnt/ublk-loop
echo 'erofs with a writable disk, on xfs:'
bench Erofs -erofs.rootPath /mnt/erofs-disk -erofs.size 67108864
echo 'ublk-loop on ext4:'
mke2fs -q -t ext4 "${disks[1]}"
mkdir /run/ext4
mount "${disks[1]}" /run/ext4
bench_ublk_loop /run/ext4
umount /run/ext4
echo 'devmapper:'
export DM_DISABLE_UDEV=1
dmsetup create pool --table "0 $(blockdev --getsz "${disks[1]}") thin-pool ${disks[2]} ${disks[1]} 128 32768 1 skip_block_zeroing"
bench Thin -dm.thinPoolDev pool -dm.rootPath /mnt/devmapper
