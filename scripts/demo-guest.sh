#!/usr/bin/env bash
# Demo of `make demo`: attach an image, use and check the disk, and detach it. Needs root, ublk and ublk-loop.
set -euo pipefail

show() {
	echo "\$ $*"
	"$@"
}

cleanup() {
	! findmnt -n "$work/mnt" >/dev/null || umount "$work/mnt"
	[[ -z ${device:-} ]] || ublk-loop del "$device" || true
	rm -rf "$work"
}

work=$(mktemp -d)
trap cleanup EXIT
cd "$work"
mkdir mnt

show uname -r
show truncate -s 256M disk.img
show mkfs.ext4 -q disk.img
echo '$ ublk-loop add disk.img'
device=$(ublk-loop add disk.img)
echo "$device"
show ublk-loop list
show mount "$device" mnt
show fio --name=demo --directory=mnt --size=16M --rw=randwrite --bs=4k --ioengine=io_uring --direct=1 --iodepth=32 \
	--verify=crc32c --do_verify=1 --output=fio.txt
show grep -E 'err=|READ:|WRITE:' fio.txt
show umount mnt
show ublk-loop del "$device"
device=''
show e2fsck -fn disk.img
