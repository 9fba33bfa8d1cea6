#!/usr/bin/env bash
# vm-kernel.sh NAME|DIR   print a directory that holds vmlinuz and lib/modules/VERSION
# vm-kernel.sh --list     print the names of the matrix
#
# NAME is one of kernels.txt: its packages are fetched once into the cache. DIR is a kernel of the user's.
set -euo pipefail

here=$(dirname "$(realpath "$0")")
cache=${UBLK_LOOP_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/ublk-loop}

die() {
	echo "vm-kernel.sh: error: $*" >&2
	exit 1
}

matrix() { sed -e 's/#.*//' -e '/^[[:space:]]*$/d' "$here/kernels.txt"; }

# Fetch the kernel $1 into the directory $2. It appears there whole or not at all.
fetch() {
	local entry work vmlinuz modules
	read -ra entry < <(matrix | awk -v name="$1" '$1 == name') ||
		die "kernel $1: neither a directory nor one of: $(matrix | awk '{printf "%s ", $1}')"
	echo "vm-kernel.sh: fetching kernel $1" >&2
	work=$(mktemp -d "$cache/kernels/fetch.XXXXXX")
	# shellcheck disable=SC2064 # the directory of now is meant
	trap "rm -rf '$work'" EXIT
	"$here/apt-fetch.sh" "${entry[1]}" "$work/root" "${entry[@]:2}"
	vmlinuz=$(find "$work/root" -name 'vmlinuz*' -type f)
	modules=$(find "$work/root" -path '*/lib/modules' -type d)
	[[ -n $vmlinuz && -n $modules ]] || die "fetch kernel $1: no vmlinuz or no modules in its packages"
	mkdir -p "$work/kernel/lib"
	mv "$vmlinuz" "$work/kernel/vmlinuz"
	mv "$modules" "$work/kernel/lib/modules"
	mv "$work/kernel" "$2"
}

main() {
	local name=${1:?NAME, DIR or --list} directory lock
	case $name in
	--list)
		matrix | awk '{print $1}'
		return
		;;
	*/*) directory=$(realpath "$name") ;;
	*)
		directory=$cache/kernels/$name
		mkdir -p "$cache/kernels"
		exec {lock}>"$cache/kernels/lock"
		flock "$lock"
		[[ -d $directory ]] || fetch "$name" "$directory"
		;;
	esac
	[[ -e $directory/vmlinuz ]] || die "kernel $directory: no vmlinuz"
	[[ -n $(ls "$directory/lib/modules" 2>/dev/null) ]] || die "kernel $directory: no lib/modules/VERSION"
	echo "$directory"
}

main "$@"
