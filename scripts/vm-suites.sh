#!/usr/bin/env bash
# vm-suites.sh   print the path of a disk image with test suites of others, for the tests to mount at /vm/suites
#
# The image contains OCI runtime-tools, which are programs that validate a runtime, and runc with its integration tests and
# what they need. The script makes it once and keeps it in the cache.
set -euo pipefail

here=$(dirname "$(realpath "$0")")
# shellcheck source=scripts/vm-image.sh
. "$here/vm-image.sh"

runtime_tools=github.com/opencontainers/runtime-tools
runtime_tools_version=v0.9.0
runtime_tools_sum=h1:FYgwVsKRI/H9hU32MJ/4MLOzXWodKK5zsQavY8NPMkU=

runc=github.com/opencontainers/runc
runc_version=v1.5.2
runc_sum=h1:eUUowc2WJCnFYzI87C1WqRcu356Dk/wsoi90y+2wEfE=
gojq=v0.12.17 # jq without shared libraries
suite=trixie  # of bats

# Copy the source of module $1, version $2, with checksum $3, to the directory $4.
copy_module() {
	local json
	json=$(GOFLAGS='' go mod download -json "$1@$2")
	[[ $json == *"\"Sum\": \"$3\""* ]] || die "module $1 $2: the checksum is not $3"
	cp -r "$(sed -n 's/.*"Dir": "\(.*\)".*/\1/p' <<<"$json")" "$4"
	chmod -R u+w "$4"
}

# Build programs of the module in the directory $1 with the further arguments of go build.
build_programs() {
	GOFLAGS='-mod=readonly -trimpath -buildvcs=false' GOOS='' GOARCH='' go -C "$1" build "${@:2}" >&2
}

# Build runtime-tools into the directory $1. The module has no go.mod, so suites/ has one that names each version.
build_runtime_tools() {
	local source=$work/runtime-tools programs
	copy_module $runtime_tools $runtime_tools_version $runtime_tools_sum "$source"
	cp "$here/suites/runtime-tools.mod" "$source/go.mod"
	cp "$here/suites/runtime-tools.sum" "$source/go.sum"
	mkdir -p "$1/programs"
	# One call compiles the common packages once. The package util is no program.
	programs=$(go -C "$source" list -f '{{if eq .Name "main"}}{{.ImportPath}}{{end}}' ./validation/...)
	# shellcheck disable=SC2086 # one word for each program
	CGO_ENABLED=0 build_programs "$source" -ldflags '-s -w' -o "$1/programs/" $programs
	CGO_ENABLED=0 build_programs "$source" -ldflags '-s -w' -o "$1/runtimetest" ./cmd/runtimetest
	# Unpack the tree of the containers, because busybox's tar does not recognize gzip.
	zcat "$source/rootfs-amd64.tar.gz" >"$1/rootfs-amd64.tar.gz"
}

# Build runc without seccomp, which would need a library, and the programs of its tests, into the directory $1.
build_runc() {
	local source=$work/runc helpers=$1/tests/cmd/_bin
	copy_module $runc $runc_version $runc_sum "$source"
	mkdir -p "$helpers" "$1/bin"
	cp -r "$source/tests/integration" "$1/tests/"
	install -m 755 "$here/suites/get-images.sh" "$1/tests/integration/"
	CGO_ENABLED=1 build_programs "$source" -tags 'netgo osusergo' \
		-ldflags "-s -w -X main.gitCommit=$runc_version -linkmode external -extldflags -static" -o "$1/bin/runc" .
	CGO_ENABLED=0 build_programs "$source" -ldflags '-s -w' -o "$helpers/" ./tests/cmd/{fs-idmap,pidfd-kill,recvtty,remap-rootfs}
	GOFLAGS='' GOOS='' GOARCH='' CGO_ENABLED=0 GOBIN=$1/bin go install -trimpath -ldflags '-s -w' \
		"github.com/itchyny/gojq/cmd/gojq@$gojq" >&2
	mv "$1/bin/gojq" "$1/bin/jq"
	install -m 755 "$here/suites/tar" "$1/bin/tar"
	# The tests cannot use those of busybox. The machine has the libraries of these, because fio needs them too.
	cp "$(realpath "$(command -v mawk)")" "$1/bin/awk"
	cp "$(realpath "$(command -v chmod)")" "$1/bin/chmod"
	"$here/apt-fetch.sh" $suite "$1/bats" bats >&2
	make_busybox "$1"
}

# Make a container's tree with busybox, in place of the registry's image, as the archive $1/busybox.tar.
make_busybox() {
	local tree=$work/busybox applet
	mkdir -p "$tree"/{bin,dev,etc,home,root,tmp,usr/bin,usr/sbin,var/tmp} # no proc and sys: tests make them
	chmod 1777 "$tree/tmp" "$tree/var/tmp"
	cp "$(realpath "$(command -v busybox)")" "$tree/bin/busybox"
	for applet in $(busybox --list); do [[ -e $tree/bin/$applet ]] || ln "$tree/bin/busybox" "$tree/bin/$applet"; done
	echo 'root:x:0:0:root:/root:/bin/sh' >"$tree/etc/passwd"
	echo 'root:x:0:' >"$tree/etc/group"
	tar -C "$tree" --owner=0 --group=0 -cf "$1/busybox.tar" .
}

fill() {
	echo "vm-suites.sh: building the suites (once, some minutes)" >&2
	build_runtime_tools "$1/runtime-tools"
	build_runc "$1/runc"
}

key() {
	cat "$here/suites"/*
	command -v go mawk chmod busybox | xargs stat -L -c '%s %Y'
}

"$here/setup.sh" mawk
print_image suites
