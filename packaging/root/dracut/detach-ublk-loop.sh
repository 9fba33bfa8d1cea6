#!/bin/sh
# shellcheck disable=SC1091,SC3043 # of dracut, whose shells have local
# Removes the device when the root file system is unmounted, and unmounts the disk below it. dracut repeats this until it
# succeeds.

command -v getarg >/dev/null || . /lib/dracut-lib.sh

detach_ublk_loop() {
	local spec disk type below
	spec=$(getarg rd.ublk-loop=) || return 0
	disk=$(label_uuid_to_dev "${spec##*@}")
	type=$(getarg rd.ublk-loop.fstype=) || type=$(blkid -o value -s TYPE "$disk")
	[ ! -b /dev/ublkb0 ] || /usr/bin/ublk-loop del /dev/ublkb0 || return 1
	while read -r _ below _; do
		case $below in
			/ublk-loop | */run/initramfs/ublk-loop) umount "$below" ;; # systemd makes /run/initramfs the root
		esac
	done </proc/mounts
	# systemd may have detached the mount, and the kernel closes the file of a server that has ended in the background. The
	# disk can only be mounted read-only once it is unmounted.
	mkdir -p /ublk-loop-below
	mount -r -t "$type" "$disk" /ublk-loop-below 2>/dev/null && umount /ublk-loop-below && return 0
	sleep 0.1
	return 1
}

detach_ublk_loop
