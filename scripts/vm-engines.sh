#!/usr/bin/env bash
# vm-engines.sh   print the path of a disk image with container engines and runtimes, for the tests to mount at /vm/engines
#
# The image contains podman and conmon of this machine; podman, conmon, runc, crun, docker and containerd of another
# Debian release; and a runc and a crictl built from Go modules. The script makes it once and keeps it in the cache. A
# disk that a guest does not mount costs nothing, but each start unpacks the whole initramfs.
set -euo pipefail

here=$(dirname "$(realpath "$0")")
# shellcheck source=scripts/vm-image.sh
. "$here/vm-image.sh"
guest=/vm/engines

runc=v1.5.2 # the newest release of github.com/opencontainers/runc
crictl=v1.34.0
suite=trixie
packages=(podman conmon netavark runc crun docker.io docker-cli containerd)
# The libraries of their programs, and the libraries that those need.
libraries=(libacl1 libassuan9 libatomic1 libattr1 libaudit1 libbsd0 libbz2-1.0 libc6 libcap-ng0 libcap2 libcrypt1 libgcc-s1
	libglib2.0-0t64 libgpg-error0 libgpgme11t64 libmd0 libpam0g libpcre2-8-0 libseccomp2 libselinux1 libsemanage2 libsepol2
	libsqlite3-0 libsubid5 libsystemd0 libyajl2)

# Copy the libraries that the program $1 of the tree $2 loads to the directory $3, with the libraries that they load.
# This includes the loader, because libc names it.
copy_libraries() {
	local name path
	while read -r name; do
		[[ ! -e $3/$name ]] || continue
		path=$2/usr/lib/x86_64-linux-gnu/$name
		[[ -e $path ]] || die "$1: there is no $path"
		cp "$(realpath "$path")" "$3/$name"
		copy_libraries "$3/$name" "$2" "$3"
	done < <(patchelf --print-needed "$1")
}

# Add the program $1 of the tree $2 ('' for this machine) to the image as the file $3, with its own libraries and
# loader. The path of the libraries is written into the program, so that programs that it executes do not use them.
add_program() {
	local loader lib=lib${2:+-$suite}
	mkdir -p "$stage/$lib" "$(dirname "$stage/$3")"
	cp "$1" "$stage/$3"
	copy_libraries "$1" "$2" "$stage/$lib"
	loader=$(patchelf --print-interpreter "$1")
	patchelf --set-interpreter "$guest/$lib/${loader##*/}" --force-rpath --set-rpath "$guest/$lib" "$stage/$3"
}

# Build runc without seccomp, which would need a library.
build_runc() {
	GOFLAGS='' GOOS='' GOARCH='' CGO_ENABLED=1 GOBIN=$stage/bin go install -trimpath -tags 'netgo osusergo' \
		-ldflags '-s -w -linkmode external -extldflags -static' "github.com/opencontainers/runc@$runc" >&2
	mv "$stage/bin/runc" "$stage/bin/runc-$runc"
}

build_crictl() {
	GOFLAGS='' GOOS='' GOARCH='' CGO_ENABLED=0 GOBIN=$stage/containerd go install -trimpath -ldflags '-s -w' \
		"sigs.k8s.io/cri-tools/cmd/crictl@$crictl" >&2
}

fill() {
	stage=$1
	mkdir -p "$stage/bin"
	local name tree=$work/$suite
	for name in podman conmon; do add_program "$(realpath "$(command -v "$name")")" '' "bin/$name"; done
	build_runc
	build_crictl
	"$here/apt-fetch.sh" $suite "$tree" "${packages[@]}" "${libraries[@]}"
	for name in bin/podman bin/conmon bin/crun sbin/runc; do add_program "$tree/usr/$name" "$tree" "bin/${name#*/}-$suite"; done
	add_program "$tree/usr/lib/podman/netavark" "$tree" "$suite/netavark"
	for name in sbin/dockerd bin/docker; do add_program "$tree/usr/$name" "$tree" "docker/${name#*/}"; done
	for name in containerd containerd-shim-runc-v2 ctr; do add_program "$tree/usr/bin/$name" "$tree" "containerd/$name"; done
}

key() { command -v podman conmon go | xargs realpath | xargs stat -L -c '%n %s %Y'; }

"$here/setup.sh" podman conmon patchelf
print_image engines
