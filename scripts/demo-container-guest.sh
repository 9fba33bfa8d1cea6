#!/usr/bin/env bash
# Demo of `make demo-container`: one image is the root of two containers. One container is killed, and nothing stays
# behind. Needs root, ublk, ublk-loop, runc and crun.
set -euo pipefail

show() {
	echo "\$ $*"
	"$@"
}

cleanup() {
	[[ -z ${server:-} ]] || { kill "$server" && wait "$server"; } || true
	rm -rf "$work" /etc/ublk-loop/oci.toml
}

# Create the tree of a small system in a directory.
make_tree() {
	mkdir -p "$1"/{bin,proc,sys,dev,etc,tmp,run}
	cp "$(command -v busybox)" "$1/bin/busybox"
	ln -s busybox "$1/bin/sh"
	echo 'This file is in the image.' >"$1/etc/motd"
}

# Create the bundle $1 of a container that runs the command $2 on the image.
make_bundle() {
	mkdir -p "$1/rootfs"
	(cd "$1" && runc spec)
	sed -i -e 's/"terminal": true/"terminal": false/' \
		-e "s|\"sh\"\$|\"/bin/sh\", \"-c\", \"$2\"|" \
		-e "s|\"ociVersion\"|\"annotations\": {\"dev.ublk-loop.rootfs.image\": \"$work/images/system.img\"}, &|" "$1/config.json"
}

# Wait up to a second until there is no device.
wait_gone() {
	local i
	for ((i = 0; i < 100; i++)); do
		[[ -n $(ublk-loop list) ]] || return 0
		read -r -t 0.01 <> <(:) || true
	done
	return 1
}

work=$(mktemp -d)
trap cleanup EXIT
cd "$work"
mkdir images
ln -s "$(command -v ublk-loop)" ublk-runc
ln -s "$(command -v ublk-loop)" ublk-crun
PATH=$work:$PATH

make_tree tree
show mksquashfs tree images/system.img -quiet -no-progress
mkdir -p /etc/ublk-loop
cat >/etc/ublk-loop/oci.toml <<TOML
allowed_images = ["$work/images"]
[runtimes]
runc = "$(command -v runc)"
crun = "$(command -v crun)"
TOML
show cat /etc/ublk-loop/oci.toml
ublk-loop serve 2>server.log &
server=$!
until [[ -S /run/ublk-loop/control.sock ]]; do read -r -t 0.01 <> <(:) || true; done

make_bundle one 'cat /etc/motd; busybox grep ublkb /proc/mounts'
show grep -o '"annotations".*}' one/config.json
show ublk-runc run --bundle one one
make_bundle two 'busybox sleep 1000'
echo "\$ ublk-crun create --bundle two two"
ublk-crun create --bundle two two </dev/null >two.log 2>&1
show ublk-crun start two
show ublk-loop list
echo '$ # the host has no mount of the image:'
show grep -c ublkb /proc/mounts || true
echo '$ # kill the container, without delete and unmount:'
pid=$(ublk-crun state two | grep -o '"pid"[: ]*[0-9]*' | grep -o '[0-9]*$')
((pid > 1))
show kill -9 "$pid"
wait_gone
show ublk-loop list
ublk-crun delete two
echo 'No device is left.'
