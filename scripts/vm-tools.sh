#!/usr/bin/env bash
# vm-tools.sh ARCH   print a directory with the programs that tests use, for an architecture that is not this machine's
#
# The script unpacks Debian's packages with their dependencies once, and keeps the directory in the cache.
set -euo pipefail

here=$(dirname "$(realpath "$0")")
cache=${UBLK_LOOP_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/ublk-loop}
suite=trixie
packages=(
	base-files bash blktrace busybox-static coreutils cryptsetup-bin curl dash dmsetup e2fsprogs erofs-utils fdisk fio grep kmod
	mount squashfs-tools strace util-linux xfsprogs btrfs-progs
)

architecture=${1:?ARCH}
directory=$cache/tools/$architecture-$({ cat "$0" && echo "$architecture"; } | sha256sum | cut -c1-12)
mkdir -p "$cache/tools"
exec {lock}>"$cache/tools/lock"
flock "$lock"
if [[ ! -d $directory ]]; then
	echo "vm-tools.sh: fetching programs for $architecture" >&2
	rm -rf "$cache/tools/$architecture"-*
	"$here/apt-fetch.sh" --closure "$architecture" "$suite" "$directory" "${packages[@]}"
fi
echo "$directory"
