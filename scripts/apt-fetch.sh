#!/usr/bin/env bash
# apt-fetch.sh [--arch ARCH] SUITE DIR PATTERN...   unpack the newest Debian packages that match the shell patterns into DIR
# apt-fetch.sh --closure ARCH SUITE DIR PACKAGE...  unpack packages and all that they depend on into DIR
# apt-fetch.sh --source SUITE DIR PACKAGE           unpack the newest source of a package into DIR, without Debian's changes
#
# The script uses its own apt configuration, so it changes neither the package lists nor the installed packages of the
# machine, and does not need root. SUITE can be a release other than the machine's own, and ARCH (amd64) another architecture.
set -euo pipefail

die() {
	echo "apt-fetch.sh: error: $*" >&2
	exit 1
}

# Print the mirror that this machine's apt uses for Debian. On other systems (Ubuntu) print Debian's default mirror.
debian_mirror() {
	local mirror fallback=deb.debian.org/debian
	mirror=$(apt-get indextargets --format "\$(LABEL) \$(REPO_URI)" 'Created-By: Packages' | awk '$1 == "Debian" {print $2; exit}')
	echo "${mirror:-http://$fallback}"
}

# Run an apt tool with its state below $work.
private_apt() {
	local tool=$1
	shift
	"$tool" -q -o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=- -o Dir::State="$work/state" \
		-o Dir::State::status="$work/status" -o Dir::Cache="$work/cache" -o APT::Architecture="$architecture" \
		-o APT::Architectures="$architecture" -o APT::Sandbox::User="$(id -un)" -o Acquire::Languages=none \
		-o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false "$@"
}

# Try twice, because a mirror fails while it is being updated.
twice() { "$@" >&2 || "$@" >&2; }

# Print the newest package whose name matches the shell pattern.
newest() {
	local name
	private_apt apt-cache pkgnames | while read -r name; do
		# shellcheck disable=SC2053 # a pattern is meant
		[[ $name != $1 ]] || echo "$name"
	done | sort -V | tail -n 1
}

# Unpack the packages that match the shell patterns into root.
fetch_packages() {
	local pattern package deb
	for pattern in "$@"; do
		package=$(newest "$pattern")
		[[ -n $package ]] || die "fetch $pattern: no such package in $suite"
		twice private_apt apt-get download "$package"
	done
	for deb in *.deb; do dpkg -x "$deb" root; done
}

# Unpack packages with all their dependencies into root.
fetch_closure() {
	local deb
	twice private_apt apt-get install --download-only -y --no-install-recommends "$@"
	for deb in cache/archives/*.deb; do dpkg -x "$deb" root; done
}

# Unpack the source of a package into root.
fetch_source() {
	twice private_apt apt-get source --download-only "$1"
	mkdir root
	tar -xf "$1"_*.orig.tar.* --strip-components=1 -C root
}

main() {
	local kind=deb fetch=fetch_packages architecture=amd64 suite directory
	case $1 in
	--source)
		kind=deb-src fetch=fetch_source
		shift
		;;
	--arch | --closure)
		[[ $1 == --arch ]] || fetch=fetch_closure
		architecture=$2
		shift 2
		;;
	esac
	suite=$1 directory=$2
	shift 2
	command -v apt-get >/dev/null || die "fetch $*: apt-get not found"
	work=$(mktemp -d "$directory.XXXXXX")
	trap 'rm -rf "$work"' EXIT
	mkdir -p "$work/state/lists/partial" "$work/cache/archives/partial"
	: >"$work/status"
	echo "$kind [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $(debian_mirror) $suite main" >"$work/sources.list"
	twice private_apt apt-get update -o APT::Update::Error-Mode=any
	cd "$work"
	"$fetch" "$@"
	mv root "$directory"
}

main "$@"
