#!/usr/bin/env bash
# vm-debian.sh SUITE [PACKAGE...]   print the path of a tar archive with a small Debian that boots with systemd
#
# The script makes it once and keeps it in the cache. It needs root.
set -euo pipefail

here=$(dirname "$(realpath "$0")")
cache=${UBLK_LOOP_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/ublk-loop}
packages=systemd-sysv,udev,kmod,e2fsprogs,mount,fdisk

# Print the mirror that this machine's apt uses for Debian.
debian_mirror() {
	apt-get indextargets --format "\$(LABEL) \$(REPO_URI)" 'Created-By: Packages' | awk '$1 == "Debian" {print $2; exit}'
}

build() {
	local work
	work=$(mktemp -d "$cache/debian/work.XXXXXX")
	# shellcheck disable=SC2064 # expand now
	trap "rm -rf '$work'" EXIT
	echo "vm-debian.sh: installing Debian $1 into a directory (once)" >&2
	mmdebstrap --quiet --format=tar --variant=minbase --include="$packages" \
		--keyring=/usr/share/keyrings/debian-archive-keyring.gpg "$1" "$work/tar" "$(debian_mirror)" >&2
	mv "$work/tar" "$2"
}

main() {
	local suite=${1:?SUITE} archive lock package
	for package in "${@:2}"; do packages+=,$package; done
	"$here/setup.sh" mmdebstrap
	mkdir -p "$cache/debian"
	exec {lock}>"$cache/debian/lock"
	flock "$lock"
	archive=$cache/debian/$suite-$({ cat "$0" && echo "$packages"; } | sha256sum | cut -c1-12).tar
	[[ -e $archive ]] || build "$suite" "$archive"
	touch "$archive"
	find "$cache/debian" -name '*.tar' -mtime +30 -delete # of older versions of this script
	echo "$archive"
}

main "$@"
