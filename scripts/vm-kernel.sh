#!/usr/bin/env bash
# vm-kernel.sh NAME|DIR   print a directory that holds vmlinuz (or linux, a user-mode kernel) and lib/modules/VERSION
# vm-kernel.sh --list     print the names of the matrix: the kernels for this machine's architecture
# vm-kernel.sh --cached NAME   succeed if the kernel is in the cache
#
# NAME is a name in kernels.txt; its packages are fetched, or its sources built, once into the cache. DIR is the user's
# own kernel.
set -euo pipefail

here=$(dirname "$(realpath "$0")")
cache=${UBLK_LOOP_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/ublk-loop}

die() {
	echo "vm-kernel.sh: error: $*" >&2
	exit 1
}

matrix() { sed -e 's/#.*//' -e '/^[[:space:]]*$/d' "$here/kernels.txt"; }

# Set $entry to the words of kernels.txt for the kernel $1: its name, suite and packages.
look_up() {
	read -ra entry < <(matrix | awk -v name="$1" '$1 == name') ||
		die "kernel $1: neither a directory nor one of: $(matrix | awk '{printf "%s ", $1}')"
}

# A kernel whose name ends in -arm64 is for arm64, all others are for amd64.
architecture() { if [[ $1 == *-arm64 ]]; then echo arm64; else echo amd64; fi; }

is_source() { [[ ${entry[2]} == linux-source-* ]]; }

# Print the directory of the kernel of $entry. The name of a built kernel's directory depends on all inputs of the
# build.
cached() {
	if is_source; then
		echo "$cache/kernels/${entry[0]}-$({ cat "$here/uml.config" "$here/uml-kernel.sh" && echo "${entry[@]}"; } | sha256sum | cut -c1-12)"
	else
		echo "$cache/kernels/${entry[0]}"
	fi
}

# Fetch the packages of $entry into the directory $1. The directory appears complete or not at all.
fetch() {
	local work vmlinuz modules
	echo "vm-kernel.sh: fetching kernel ${entry[0]}" >&2
	work=$(mktemp -d "$cache/kernels/fetch.XXXXXX")
	# shellcheck disable=SC2064 # expand now
	trap "rm -rf '$work'" EXIT
	"$here/apt-fetch.sh" --arch "$(architecture "${entry[0]}")" "${entry[1]}" "$work/root" "${entry[@]:2}"
	vmlinuz=$(find "$work/root" -name 'vmlinuz*' -type f)
	modules=$(find "$work/root" -path '*/lib/modules' -type d)
	[[ -n $vmlinuz && -n $modules ]] || die "fetch kernel ${entry[0]}: no vmlinuz or no modules in its packages"
	mkdir -p "$work/kernel/lib"
	mv "$vmlinuz" "$work/kernel/vmlinuz"
	mv "$modules" "$work/kernel/lib/modules"
	mv "$work/kernel" "$1"
}

# Make sure that the kernel of $entry is in the cache. Each kernel has its own lock, so one can be fetched while another
# is built.
provide() {
	local lock
	[[ ! -d $directory ]] || return 0 # does not wait for a build of the same kernel with other inputs
	mkdir -p "$cache/kernels"
	exec {lock}>"$cache/kernels/${entry[0]}.lock"
	flock "$lock"
	[[ ! -d $directory ]] || return 0 # another process has made it
	if is_source; then
		"$here/uml-kernel.sh" "${entry[1]}" "${entry[2]}" "$directory"
	else
		fetch "$directory"
	fi
}

main() {
	local name=${1:?NAME, DIR or --list} directory entry=()
	case $name in
	--list)
		matrix | awk '$1 !~ /-arm64$/ {print $1}'
		return
		;;
	--cached)
		look_up "${2:?NAME}"
		[[ -d $(cached) ]]
		return
		;;
	*/*) directory=$(realpath "$name") ;;
	*)
		look_up "$name"
		directory=$(cached)
		provide
		;;
	esac
	[[ -e $directory/vmlinuz || -x $directory/linux ]] || die "kernel $directory: no vmlinuz"
	[[ -n $(ls "$directory/lib/modules" 2>/dev/null) ]] || die "kernel $directory: no lib/modules/VERSION"
	echo "$directory"
}

main "$@"
