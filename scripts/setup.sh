#!/usr/bin/env bash
# setup.sh [COMMAND...]   install what the VM and the tests need, and packages of the given commands' names
#
# It installs packages as root on Debian and Ubuntu. On other systems it lists the missing packages in one line. As root it
# also raises vm.max_map_count until the next boot. If nothing is missing it takes a few milliseconds, so every script can
# call it.
set -euo pipefail

# Required commands, and the packages that contain them.
needs="
qemu-system-x86_64 qemu-system-x86
busybox            busybox-static
bash               bash
cpio               cpio
depmod             kmod
xz                 xz-utils
zstd               zstd
flock              util-linux
setpriv            util-linux
sfdisk             fdisk
mount              mount
fio                fio
curl               curl
systemctl          systemd
mke2fs             e2fsprogs
resize2fs          e2fsprogs
mkfs.xfs           xfsprogs
mkfs.btrfs         btrfs-progs
mkfs.erofs         erofs-utils
mksquashfs         squashfs-tools
runc               runc
crun               crun
dmsetup            dmsetup
cryptsetup         cryptsetup-bin
veritysetup        cryptsetup-bin
strace             strace
blktrace           blktrace
openssl            openssl
qemu-aarch64       qemu-user
gcc                gcc
"

missing_packages() {
	local command package
	for command in "$@"; do command -v "$command" >/dev/null || echo "$command"; done
	while read -r command package; do
		[[ -n $command ]] || continue
		command -v "$command" >/dev/null || echo "$package"
	done <<<"$needs"
	# Debian's key, for the kernels. Ubuntu does not include it.
	[[ ! -e /usr/bin/apt-get || -e /usr/share/keyrings/debian-archive-keyring.gpg ]] || echo debian-archive-keyring
	# The C code of the race detector needs the headers of the C library.
	[[ -e /usr/include/stdlib.h ]] || echo libc6-dev
	is_static_busybox || echo busybox-static
}

# The initramfs has no libraries for its busybox at the start.
is_static_busybox() {
	local path
	path=$(command -v busybox) || return 0 # counted as missing already
	! ldd "$path" >/dev/null 2>&1
}

install_packages() {
	export DEBIAN_FRONTEND=noninteractive
	apt-get update -q && apt-get install -q -y --no-install-recommends -o DPkg::Lock::Timeout=300 "$@"
}

# A user-mode kernel maps almost each page of a guest's process by itself. If the host allows no further mapping, the process
# hangs. The number is the one that systemd sets since version 256 (sysctl.d/10-map-count.conf).
allow_mappings() {
	local limit=/proc/sys/vm/max_map_count wanted=1048576
	(($(<"$limit") < wanted)) && [[ $EUID -eq 0 && -w $limit ]] || return 0
	echo "setup.sh: setting vm.max_map_count to $wanted" >&2
	echo "$wanted" >"$limit"
}

main() {
	PATH=$PATH:/usr/sbin:/sbin
	allow_mappings
	local missing=()
	mapfile -t missing < <(missing_packages "$@" | sort -u)
	((${#missing[@]})) || return 0
	if [[ ! -e /usr/bin/apt-get || $EUID -ne 0 ]]; then
		echo "setup.sh: error: missing packages (Debian names): ${missing[*]}" >&2
		return 1
	fi
	echo "setup.sh: installing ${missing[*]}" >&2
	# Try twice, because a mirror fails while it is being updated.
	install_packages "${missing[@]}" >&2 || install_packages "${missing[@]}" >&2
}

main "$@"
