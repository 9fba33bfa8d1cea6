#!/usr/bin/env bash
# vm-containerd.sh SUITE   print a directory that holds containerd, ctr and the shim of a Debian suite
#
# The script fetches them once into the cache and does not install them. They need a C library at least as new as
# theirs.
set -euo pipefail

here=$(dirname "$(realpath "$0")")
cache=${UBLK_LOOP_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/ublk-loop}
programs=(containerd ctr containerd-shim-runc-v2)

# Fetch the programs of suite $1 into the directory $2. The directory appears complete or not at all.
fetch() {
	local work program
	echo "vm-containerd.sh: fetching containerd of $1" >&2
	work=$(mktemp -d "$cache/containerd/fetch.XXXXXX")
	# shellcheck disable=SC2064 # expand now
	trap "rm -rf '$work'" EXIT
	"$here/apt-fetch.sh" "$1" "$work/root" containerd >&2
	mkdir "$work/programs"
	for program in "${programs[@]}"; do mv "$work/root/usr/bin/$program" "$work/programs/"; done
	mv "$work/programs" "$2"
}

main() {
	local suite=${1:?SUITE} directory lock
	directory=$cache/containerd/$suite
	mkdir -p "$cache/containerd"
	exec {lock}>"$cache/containerd/lock"
	flock "$lock"
	[[ -d $directory ]] || fetch "$suite" "$directory"
	echo "$directory"
}

main "$@"
