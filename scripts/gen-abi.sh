#!/bin/sh
# Compiles the kernel's headers with a C compiler and writes the result to
# {ring,ublk/uapi,loop/internal/backing}/testdata/abi.txt: the value of every constant, the size of
# every struct and the offset and size of every field that uapi.go declares.
#
# usage: scripts/gen-abi.sh [--check] [DIR]
#
#   --check  write nothing; show the differences and fail if there are any
#   DIR      kernel headers for user space, with linux/ublk_cmd.h (the
#            usr/include that "make headers_install" creates)
#
# Without DIR the script unpacks the newest linux-libc-dev of Debian's
# trixie-backports in
# ${UBLK_LOOP_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/ublk-loop}, and does not
# install it.
#
# Needs go and gcc; without DIR also apt-get and dpkg with a Debian mirror in
# apt's sources.

set -eu
export LC_ALL=C
packages='ring ublk/uapi loop/internal/backing'
suite=trixie-backports

die() {
	echo "gen-abi: error: $*" >&2
	exit 1
}

# private_apt COMMAND ARG... runs apt-get or apt-cache with its own lists, cache
# and sources below $apt, so that those of the machine do not change.
private_apt() {
	command=$1
	shift
	"$command" -qq -o Dir::Etc::sourcelist="$apt/sources.list" -o Dir::Etc::sourceparts=- \
		-o Dir::State::lists="$apt/lists" -o Dir::Cache="$apt/cache" \
		-o Acquire::Languages=none -o APT::Sandbox::User=root "$@"
}

# unpack_headers sets headers to the newest package's include directory.
unpack_headers() {
	cache=${UBLK_LOOP_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/ublk-loop}
	apt=$work/apt
	mkdir -p "$cache/uapi" "$apt/lists/partial" "$apt/cache/archives/partial"
	# shellcheck disable=SC2016 # apt-get expands it, not the shell
	mirror=$(apt-get indextargets --format '$(REPO_URI)' | grep -v security | sort -u | head -n 1)
	[ -n "$mirror" ] || die "find a Debian mirror: none in apt's sources; give a directory of headers"
	echo "deb $mirror $suite main" >"$apt/sources.list"
	private_apt apt-get update || die "update $suite from $mirror"
	version=$(private_apt apt-cache madison linux-libc-dev | awk '{ print $3; exit }')
	[ -n "$version" ] || die "find linux-libc-dev in $suite: no such package"
	headers=$cache/uapi/$version/usr/include
	[ -e "$cache/uapi/$version" ] && return
	(cd "$work" && private_apt apt-get download "linux-libc-dev=$version") || die "download linux-libc-dev $version"
	unpacked=$(mktemp -d "$cache/uapi/.$version.XXXXXX")
	dpkg -x "$work"/linux-libc-dev_*.deb "$unpacked"
	mv -T "$unpacked" "$cache/uapi/$version"
}

# c_program PACKAGE prints a C program that prints the package's entries.
c_program() {
	cat <<-'END'
		#include <errno.h>
		#include <stddef.h>
		#include <stdio.h>
		#include <linux/blkdev.h>
		#include <linux/io_uring.h>
		#include <linux/ublk_cmd.h>

		#define CONST(c) \
			printf((c) < 0 ? "const %s %lld\n" : "const %s %llu\n", #c, (long long)(c))
		#define SIZE(s) printf("size %s %zu\n", #s, sizeof(s))
		#define OFFSET(s, f) \
			printf("offset %s.%s %zu %zu\n", #s, #f, offsetof(s, f), sizeof(((s *)0)->f))

		int main(void)
		{
	END
	go run ./scripts/abicheck/cmd "$1/uapi.go" >"$work/names"
	sed -e 's/^const \(.*\)/	CONST(\1);/' \
		-e 's/^size \(.*\)/	SIZE(\1);/' \
		-e 's/^offset \([^.]*\)\.\(.*\)/	OFFSET(\1, \2);/' "$work/names"
	echo '}'
}

# kernel_version prints the kernel version in the headers.
kernel_version() {
	awk '$2 == "LINUX_VERSION_MAJOR" { a = $3 }
		$2 == "LINUX_VERSION_PATCHLEVEL" { b = $3 }
		$2 == "LINUX_VERSION_SUBLEVEL" { c = $3 }
		END { print a "." b "." c }' "$headers/linux/version.h"
}

# golden PACKAGE prints the package's golden file.
golden() {
	c_program "$1" >"$work/abi.c"
	gcc -Wall -Wno-type-limits -Werror -isystem "$headers" \
		-isystem "$headers/$(gcc -print-multiarch)" -o "$work/abi" "$work/abi.c"
	version=$(kernel_version)
	echo "# Headers of Linux $version. Written by scripts/gen-abi.sh; do not edit."
	"$work/abi" | sort
}

# compare PACKAGE FILE shows how the golden file differs from FILE. It ignores
# the version of the kernel's headers.
compare() {
	sed 1d "$1/testdata/abi.txt" >"$work/old"
	sed 1d "$2" | diff -u --label "$1/testdata/abi.txt" --label compiled "$work/old" -
}

check=
headers=
for arg; do
	case $arg in
	--check) check=yes ;;
	-*) die "unknown option $arg" ;;
	*) headers=$(realpath "$arg") ;;
	esac
done

cd "$(dirname "$0")/.."
unpacked=
work=$(mktemp -d)
trap 'rm -rf "$work" ${unpacked:+"$unpacked"}' EXIT
[ -n "$headers" ] || unpack_headers
[ -e "$headers/linux/ublk_cmd.h" ] || die "read $headers/linux/ublk_cmd.h: not there"

status=0
for package in $packages; do
	golden "$package" >"$work/abi.txt"
	if [ -n "$check" ]; then
		compare "$package" "$work/abi.txt" || status=1
	else
		mkdir -p "$package/testdata"
		cp "$work/abi.txt" "$package/testdata/abi.txt"
	fi
done
exit $status
