#!/usr/bin/env bash
# vm-utillinux.sh SUITE   print a directory that holds the tests of losetup in the util-linux of a Debian suite
#
# The script fetches the source package once into the cache.
set -euo pipefail

here=$(dirname "$(realpath "$0")")
cache=${UBLK_LOOP_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/ublk-loop}
parts=(tests/functions.sh tests/commands.sh tests/ts/losetup tests/expected/losetup)

# Fetch the tests of suite $1 into the directory $2. The directory appears complete or not at all.
fetch() {
	local work part
	echo "vm-utillinux.sh: fetching the source of util-linux of $1" >&2
	work=$(mktemp -d "$cache/util-linux/fetch.XXXXXX")
	# shellcheck disable=SC2064 # expand now
	trap "rm -rf '$work'" EXIT
	"$here/apt-fetch.sh" --source "$1" "$work/source" util-linux >&2
	for part in "${parts[@]}"; do
		mkdir -p "$work/tests/$(dirname "$part")"
		mv "$work/source/$part" "$work/tests/$part"
	done
	mv "$work/tests" "$2"
}

main() {
	local suite=${1:?SUITE} directory lock
	directory=$cache/util-linux/$suite
	mkdir -p "$cache/util-linux"
	exec {lock}>"$cache/util-linux/lock"
	flock "$lock"
	[[ -d $directory ]] || fetch "$suite" "$directory"
	echo "$directory"
}

main "$@"
