#!/usr/bin/env bash
# uml-kernel.sh SUITE PACKAGE DIR   build a user-mode kernel from a Debian source package into DIR
#
# DIR then holds linux, the kernel as a program, and lib/modules/VERSION. It appears whole or not at all. The
# configuration is uml.config. Root is not needed; a compiler, flex, bison and bc are.
set -euo pipefail

here=$(dirname "$(realpath "$0")")
progress=20 # seconds between two lines of progress

# Run make for the user-mode architecture, with the objects apart from the sources.
uml_make() { make -C "$source" ARCH=um O="$work/build" LOCALVERSION= "$@"; }

configure() {
	uml_make -s KCONFIG_ALLCONFIG="$here/uml.config" allnoconfig >&2
	local option
	while read -r option; do
		grep -qxF "$option" "$work/build/.config" || echo "uml-kernel.sh: warning: option without effect: $option" >&2
	done < <(grep '^CONFIG_' "$here/uml.config")
}

# Say from time to time how many files have been compiled, until the process that makes the log is gone.
report_progress() {
	local started=$SECONDS
	while sleep "$progress"; do
		echo "uml-kernel.sh: compiled $(grep -cE '^ +(CC|AS|HOSTCC) ' "$work/log") files in $((SECONDS - started)) s" >&2
	done
}

compile() {
	local reporter status=0
	report_progress &
	reporter=$!
	uml_make -j "$(nproc)" linux modules >"$work/log" 2>&1 || status=$?
	kill "$reporter" 2>/dev/null || true
	((status == 0)) || tail -n 30 "$work/log" >&2
	return $status
}

main() {
	local suite=$1 package=$2 directory=$3
	"$here/setup.sh" flex bison bc >&2
	work=$(mktemp -d "$directory.XXXXXX")
	trap 'rm -rf "$work"' EXIT
	echo "uml-kernel.sh: building a user-mode kernel from $package (once, some minutes)" >&2
	"$here/apt-fetch.sh" "$suite" "$work/package" "$package"
	mkdir "$work/unpacked"
	tar -xf "$work"/package/usr/src/*.tar.xz -C "$work/unpacked"
	source=$(echo "$work"/unpacked/*)
	configure
	compile
	uml_make -s INSTALL_MOD_PATH="$work/kernel" INSTALL_MOD_STRIP=1 modules_install >/dev/null
	rm -f "$work"/kernel/lib/modules/*/build
	cp "$work/build/linux" "$work/kernel/linux"
	strip "$work/kernel/linux"
	mv "$work/kernel" "$directory"
}

main "$@"
