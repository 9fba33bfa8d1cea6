# vm-image.sh   for scripts that make a disk image once and keep it in the cache. They source it.
#
# Such a script has two functions: key prints what the image depends on, and fill makes the content of the image as the
# directory $1, for which it may use the directory $work.
# shellcheck shell=bash

cache=${UBLK_LOOP_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/ublk-loop}
PATH=$PATH:/usr/sbin:/sbin

die() {
	echo "${0##*/}: error: $*" >&2
	exit 1
}

# Make the image $1, an erofs.
build_image() {
	work=$(mktemp -d "${1%/*}/work.XXXXXX")
	trap 'rm -rf "$work"' EXIT
	fill "$work/image"
	mkfs.erofs "$work/erofs" "$work/image" >/dev/null
	mv "$work/erofs" "$1"
}

# Print the path of the image in the directory $1 of the cache.
print_image() {
	local dir=$cache/$1 image lock
	mkdir -p "$dir"
	exec {lock}>"$dir/lock"
	flock "$lock"
	image=$dir/$({ cat "$0" && key; } | sha256sum | cut -c1-16).erofs
	[[ -e $image ]] || build_image "$image"
	touch "$image"
	find "$dir" -name '*.erofs' -mtime +7 -delete
	echo "$image"
}
