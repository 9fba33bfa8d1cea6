#!/bin/sh
# shellcheck disable=SC1091,SC3043 # of dracut, whose shells have local
# Attaches the file when its disk is there. dracut calls this each time that udev has no more events.

command -v getarg >/dev/null || . /lib/dracut-lib.sh

attach_ublk_loop() {
	local spec disk type
	spec=$(getarg rd.ublk-loop=) || return 0
	[ -e /run/initramfs/ublk-loop ] && return 0
	disk=$(label_uuid_to_dev "${spec##*@}")
	[ -b "$disk" ] || return 0
	need_shutdown # the shutdown comes back to the initramfs
	type=$(getarg rd.ublk-loop.fstype=) || type=$(blkid -o value -s TYPE "$disk")
	flags=$(getarg rd.ublk-loop.flags=) add=$(getarg rd.ublk-loop.add=) \
		/usr/lib/ublk-loop/attach "${spec%@*}" "$disk" "$type" || warn "ublk-loop: cannot attach $spec"
}

attach_ublk_loop
