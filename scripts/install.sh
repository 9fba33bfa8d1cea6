#!/usr/bin/env bash
# install.sh main|snapshotter   install what bin/ has, and the files that belong to it ("make install" calls this)
#
# DESTDIR is put before every path. PREFIX is where the program finds its files (/usr/local). ZSHDIR is the directory of
# zsh's completions below PREFIX. If UNITS is no, no units of systemd are installed. BIN is the directory of the programs,
# and RUN a program of this machine's architecture that prints the completions.
set -euo pipefail

here=$(dirname "$(realpath "$0")")
source=$(realpath "$here/..")
: "${DESTDIR:=}" "${PREFIX:=/usr/local}" "${ZSHDIR:=share/zsh/site-functions}" "${UNITS:=yes}" "${BIN:=$source/bin}"
: "${RUN:=$BIN/ublk-loop}"
root=$DESTDIR$PREFIX

# Install a file with a mode (644), with the prefix in place of /usr in the paths of the program and its parts.
with_path() {
	install -D -m "${3:-644}" "$1" "$2"
	sed -i "s,/usr/bin/ublk-loop,$PREFIX/bin/ublk-loop,g; s,/usr/lib/ublk-loop,$PREFIX/lib/ublk-loop,g" "$2"
}

compressed() {
	install -d "$(dirname "$2")"
	gzip -9 -n -c "$1" >"$2"
	chmod 644 "$2"
}

units() {
	local unit
	[[ $UNITS == yes ]] || return 0
	for unit in "$@"; do with_path "$source/cmd/ublk-loop/systemd/$unit" "$root/lib/systemd/system/$unit"; done
}

completions() {
	local share=$root/share
	install -d "$share/bash-completion/completions" "$root/$ZSHDIR" "$share/fish/vendor_completions.d"
	"$RUN" completion bash >"$share/bash-completion/completions/ublk-loop"
	"$RUN" completion zsh >"$root/$ZSHDIR/_ublk-loop"
	"$RUN" completion fish >"$share/fish/vendor_completions.d/ublk-loop.fish"
}

# mount(8) looks for helpers in /sbin only, which is a link to /usr/sbin where the prefix is /usr.
mount_helper() {
	local sbin=$DESTDIR/sbin target=$PREFIX/bin/ublk-loop
	[[ $PREFIX != /usr ]] || sbin=$DESTDIR/usr/sbin target=../bin/ublk-loop
	install -d "$sbin"
	ln -sf "$target" "$sbin/mount.ublk-loop"
}

# What makes an initramfs attach the root file system. dracut, initramfs-tools and systemd look for it below /usr only.
root_files() {
	local file
	with_path "$source/packaging/root/attach" "$root/lib/ublk-loop/attach" 755
	for file in module-setup.sh parse-ublk-loop.sh attach-ublk-loop.sh detach-ublk-loop.sh; do
		with_path "$source/packaging/root/dracut/$file" "$DESTDIR/usr/lib/dracut/modules.d/90ublk-loop/$file" 755
	done
	for file in hooks/ublk-loop scripts/local-top/ublk-loop; do
		with_path "$source/packaging/root/initramfs-tools/$file" "$DESTDIR/usr/share/initramfs-tools/$file" 755
	done
	with_path "$source/packaging/root/shutdown" "$DESTDIR/usr/lib/systemd/system-shutdown/ublk-loop" 755
}

install_main() {
	local name
	install -D -m 755 "$BIN/ublk-loop" "$root/bin/ublk-loop"
	for name in ublk-runc ublk-crun ublk-losetup; do ln -sf ublk-loop "$root/bin/$name"; done
	mount_helper
	compressed "$source/docs/ublk-loop.8" "$root/share/man/man8/ublk-loop.8.gz"
	for name in ublk-runc ublk-crun ublk-losetup mount.ublk-loop; do ln -sf ublk-loop.8.gz "$root/share/man/man8/$name.8.gz"; done
	completions
	install -D -m 644 "$source/packaging/ublk-loop/modules-load.conf" "$root/lib/modules-load.d/ublk-loop.conf"
	install -D -m 644 "$source/packaging/ublk-loop/61-ublk-loop.rules" "$root/lib/udev/rules.d/61-ublk-loop.rules"
	install -D -m 644 "$source/packaging/ublk-loop/tmpfiles.conf" "$root/lib/tmpfiles.d/ublk-loop.conf"
	[[ $UNITS != yes ]] || root_files # Alpine has its own initramfs
	units ublk-loop.service ublk-loop.socket ublk-loop-sweep.service ublk-loop-sweep.timer
	documents ublk-loop
	guides
	with_path "$source/cmd/ublk-loop/hooks.d/ublk-loop.json" "$root/share/doc/ublk-loop/hooks.d/ublk-loop.json"
	compressed "$source/CHANGELOG.md" "$root/share/doc/ublk-loop/CHANGELOG.md.gz"
}

install_snapshotter() {
	install -D -m 755 "$BIN/ublk-loop-snapshotter" "$root/libexec/ublk-loop/ublk-loop-snapshotter"
	units ublk-loop-snapshotter.service
	documents ublk-loop-snapshotter
}

# The manual, settings and messages of the program name these documents. README.md has an overview of them.
guides() {
	local file
	install -D -m 644 "$source/README.md" "$root/share/doc/ublk-loop/README.md"
	for file in "$source"/docs/*.{md,json,svg}; do
		install -D -m 644 "$file" "$root/share/doc/ublk-loop/docs/${file##*/}"
	done
}

documents() { install -D -m 644 "$source/packaging/copyright" "$root/share/doc/$1/copyright"; }

case ${1:-} in
main | snapshotter) "install_$1" ;;
*)
	echo "usage: install.sh main|snapshotter" >&2
	exit 2
	;;
esac
