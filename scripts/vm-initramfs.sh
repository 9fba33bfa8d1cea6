#!/usr/bin/env bash
# vm-initramfs.sh KERNELDIR   print the path of a cpio archive with the tools and the kernel's modules that tests use
#
# The script builds the archive once per kernel and keeps it in the cache. The archive is not compressed: QEMU copies it
# into the guest's memory at once, while the guest would decompress it in emulation. vm.sh appends the files of each
# run.
set -euo pipefail

here=$(dirname "$(realpath "$0")")
cache=${UBLK_LOOP_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/ublk-loop}
PATH=$PATH:/usr/sbin:/sbin

# Programs of this machine, or of Debian for another architecture (vm-tools.sh), because busybox's are too simple.
# (busybox's shell prefers busybox's programs to all of these.) Programs that the machine lacks are left out.
tools=(
	sh bash cat cmp cp date dd env grep ls mkdir mv rm sha256sum sleep stat sync timeout truncate
	mount umount mountpoint findmnt losetup lsblk blkid blockdev blkdiscard blkzone fallocate flock lsof
	nsenter prlimit setpriv sfdisk taskset unshare wipefs
	kmod depmod insmod lsmod modinfo modprobe rmmod
	fio strace blktrace blkparse dmsetup cryptsetup veritysetup curl systemctl /lib/systemd/systemd
	mke2fs mkfs.ext4 e2fsck fsck.ext4 resize2fs tune2fs dumpe2fs debugfs
	mkfs.xfs xfs_growfs xfs_repair xfs_db xfs_io mkfs.btrfs btrfs mkfs.erofs mksquashfs
	runc crun
)

# Modules below kernel/. The modules that they depend on are added.
modules=(
	drivers/block/{ublk_drv,loop,brd,nbd,virtio_blk,null_blk/null_blk}
	drivers/scsi/{scsi_debug,virtio_scsi,sd_mod}
	drivers/block/zram/zram
	drivers/md/{dm-mod,dm-flakey,dm-delay,dm-dust,dm-crypt,dm-zero,dm-log-writes,dm-snapshot,dm-integrity,dm-verity,dm-thin-pool}
	fs/{ext4/ext4,xfs/xfs,btrfs/btrfs,overlayfs/overlay,squashfs/squashfs,erofs/erofs,fuse/fuse}
	crypto/{xts,algif_skcipher,crc32c-cryptoapi} # btrfs requests the last by an alias, which is not a dependency
	arch/x86/crypto/aesni-intel arch/arm64/crypto/aes-ce-blk
)

die() {
	echo "vm-initramfs.sh: error: $*" >&2
	exit 1
}

# Copy a file of $root to the same path below $stage, with the target of a link.
copy() {
	local path=$1 real
	[[ ! -e $stage$path && ! -L $stage$path ]] || return 0
	real=$(realpath "$root$path")
	real=${real#"$root"}
	mkdir -p "$stage$(dirname "$path")"
	if [[ $root$real -ef $stage$path ]]; then return; fi
	if [[ $(realpath "$root$(dirname "$path")")/$(basename "$path") == "$root$real" ]]; then
		cp "$root$real" "$stage$path"
	else
		copy "$real"
		ln -s "$real" "$stage$path"
	fi
}

# Print the path of a program below $root.
find_program() {
	local path
	if [[ -z $root ]]; then
		command -v "$1"
		return
	fi
	for path in "/usr/sbin/$1" "/usr/bin/$1"; do
		if [[ -x $root$path ]]; then
			echo "$path"
			return
		fi
	done
	return 1
}

# Print the paths below $root of the libraries of a program.
libraries() {
	if [[ -z $root ]]; then
		ldd "$1" 2>/dev/null | grep -o '/[^ ]*'
	else
		qemu-aarch64 -L "$root" "$root"/lib/ld-linux-aarch64.so.1 --list "$root$1" 2>/dev/null | sed "s|$root||g" | grep -o '/[^ ]*'
	fi
}

copy_program() {
	local path library
	path=$(find_program "$1") || return 0
	copy "$path"
	while read -r library; do copy "$library"; done < <(libraries "$path")
}

copy_tools() {
	local tool extra
	for tool in "${tools[@]}"; do copy_program "$tool"; done
	# Programs load these at run time, so ldd does not list them. Also copy the defaults of the file systems.
	for extra in "$(dirname "$(libraries "$(find_program bash)" | grep 'libc\.so' | head -n 1)")"/{libgcc_s.so.1,ossl-modules/legacy.so} /etc/mke2fs.conf; do
		[[ ! -e $root$extra ]] || copy "$extra"
	done
}

copy_busybox() {
	local applet
	cp "$(realpath "$root$(find_program busybox)")" "$stage/usr/bin/busybox"
	for applet in $(${root:+qemu-aarch64} "$stage/usr/bin/busybox" --list); do
		[[ -e $stage/usr/bin/$applet || -e $stage/usr/sbin/$applet ]] || ln -s busybox "$stage/usr/bin/$applet"
	done
}

unpack_module() {
	case $1 in
	*.xz) xz -dc "$1" ;;
	*.zst) zstd -qdc "$1" ;;
	*.gz) gzip -dc "$1" ;;
	*) cat "$1" ;;
	esac
}

# Print a module and its dependencies, from modules.dep in $source; paths are relative to $source.
with_dependencies() { awk -v want="kernel/$1.ko" -F'[: ]+' 'index($1, want) == 1 {print; exit}' "$source/modules.dep" | tr -d : | xargs -n 1; }

# Add the modules decompressed, so that a simple insmod can load them and the guest has less work.
copy_modules() {
	local version module file target
	version=$(ls "$kernel/lib/modules")
	mkdir -p "$work/deps/lib/modules"
	cp -rs "$kernel/lib/modules/$version" "$work/deps/lib/modules/$version"
	depmod -b "$work/deps" "$version"
	source=$work/deps/lib/modules/$version
	target=$stage/lib/modules/$version
	mkdir -p "$target"
	cp -L "$source"/modules.{builtin,builtin.modinfo,order} "$target/"
	for module in "${modules[@]}"; do
		for file in $(with_dependencies "$module"); do
			[[ ! -e $target/${file%.ko*}.ko ]] || continue
			mkdir -p "$target/$(dirname "$file")"
			unpack_module "$source/$file" >"$target/${file%.ko*}.ko"
		done
	done
	[[ -e $target/kernel/drivers/block/ublk_drv.ko ]] || grep -q '/ublk_drv\.ko' "$target/modules.builtin" ||
		die "kernel $kernel: no ublk_drv"
	depmod -b "$stage" "$version"
}

write_etc() {
	mkdir -p "$stage"/{dev,proc,sys,run,tmp,root,mnt,etc,var}
	printf '%s\n' 'root:x:0:0:root:/root:/bin/bash' 'nobody:x:65534:65534:nobody:/:/bin/false' >"$stage/etc/passwd"
	printf '%s\n' 'root:x:0:' 'disk:x:6:' 'nogroup:x:65534:' >"$stage/etc/group"
	echo '127.0.0.1 localhost' >"$stage/etc/hosts"
	ln -s /proc/self/mounts "$stage/etc/mtab"
	# On a normal system udev loads sd_mod when a SCSI disk appears.
	mkdir "$stage/etc/modprobe.d"
	echo 'softdep scsi_debug pre: sd_mod' >"$stage/etc/modprobe.d/disks.conf"
	ln -s ../run "$stage/var/run"
	ln -s ../tmp "$stage/var/tmp"
}

build() {
	work=$(mktemp -d "$cache/initramfs/work.XXXXXX")
	trap 'rm -rf "$work"' EXIT
	stage=$work/stage
	mkdir -p "$stage"/usr/{bin,sbin,lib,lib64}
	ln -s usr/bin usr/sbin usr/lib usr/lib64 "$stage"
	write_etc
	copy_tools
	copy_busybox
	copy_modules
	(cd "$stage" && find . -print0 | cpio --quiet -0 -o -H newc -R 0:0) >"$work/cpio"
	mv "$work/cpio" "$archive"
}

# Hash the inputs of the archive. A new version of a tool or of this script makes a new archive.
key() {
	{
		cat "$0"
		echo "$root"
		for tool in "${tools[@]}" busybox; do find_program "$tool" || true; done | sed "s|^|$root|" | xargs stat -L -c '%n %s %Y'
		stat -c '%s %Y' "$kernel/lib/modules"/*
	} | sha256sum | cut -c1-16
}

main() {
	kernel=$(realpath "${1:?KERNELDIR}")
	root=''
	[[ $kernel != *-arm64 ]] || root=$("$here/vm-tools.sh" arm64)
	mkdir -p "$cache/initramfs"
	exec {lock}>"$cache/initramfs/lock"
	flock "$lock"
	archive=$cache/initramfs/$(basename "$kernel")-$(key).cpio
	[[ -e $archive ]] || build
	touch "$archive"
	find "$cache/initramfs" -name '*.cpio' -mtime +7 -delete # archives of older tools
	echo "$archive"
}

main "$@"
