#!/bin/bash
# shellcheck disable=SC2154 # dracut sets moddir
# A root file system on a device of ublk-loop, for dracut(8). docs/root.md describes it.

# dracut calls this: an initramfs for the running system has the module if that system boots in this way. Others need
# --add ublk-loop.
check() {
	require_binaries /usr/bin/ublk-loop || return 1
	[[ " $(</proc/cmdline)" == *" rd.ublk-loop="* ]] && return 0
	return 255
}

# dracut calls this.
depends() {
	echo rootfs-block shutdown
}

# dracut calls this.
installkernel() {
	instmods ublk_drv
}

# dracut calls this.
install() {
	inst_multiple /usr/bin/ublk-loop modprobe mount umount mkdir blkid
	inst_simple /usr/lib/ublk-loop/attach
	inst_rules 61-ublk-loop.rules
	inst_hook cmdline 30 "$moddir/parse-ublk-loop.sh"
	inst_hook initqueue/settled 30 "$moddir/attach-ublk-loop.sh"
	inst_hook shutdown 30 "$moddir/detach-ublk-loop.sh"
	dracut_need_initqueue
}
