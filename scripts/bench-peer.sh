#!/usr/bin/env bash
# Build the kernel's own test server for ublk outside the tree, from Debian's packages, and print its path.
set -euo pipefail

here=$(dirname "$(realpath "$0")")
cache=${UBLK_LOOP_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/ublk-loop}

main() {
	local peer=$cache/peers/kublk work source=tools/testing/selftests/ublk
	if [[ ! -x $peer ]]; then
		mkdir -p "$cache/peers"
		work=$(mktemp -d "$cache/peers/work.XXXXXX")
		# shellcheck disable=SC2064 # expand now
		trap "rm -rf '$work'" EXIT
		echo "bench-peer.sh: building kublk (once)" >&2
		"$here/apt-fetch.sh" trixie-backports "$work/kernel" 'linux-source-7.3' 'linux-libc-dev'
		"$here/apt-fetch.sh" trixie "$work/uring" 'liburing-dev'
		tar -C "$work" -xf "$work/kernel/usr/src/linux-source-7.3.tar.xz" --wildcards "*/$source"
		(
			cd "$work"/linux-source-*/"$source"
			gcc -O3 -static -D_GNU_SOURCE -I. -I"$work/kernel/usr/include" -I"$work/kernel/usr/include/x86_64-linux-gnu" \
				-I"$work/uring/usr/include" kublk.c null.c file_backed.c common.c stripe.c fault_inject.c batch.c \
				-L"$work/uring/usr/lib/x86_64-linux-gnu" -luring -lpthread -o "$work/kublk" >&2
		)
		mv "$work/kublk" "$peer"
	fi
	echo "$peer"
}

main "$@"
