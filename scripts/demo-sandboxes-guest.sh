#!/usr/bin/env bash
# Demo of `make demo-sandboxes`: containers with a writable disk each over one image are started, written to, forked and
# removed. Prints time, memory and disk space for each container. Needs root, ublk, ublk-loop, and runc or crun.
set -euo pipefail

sandboxes=${1:-200}
runtime=${2:-runc}

cleanup() {
	local i
	for ((i = 1; i <= sandboxes; i++)); do "$runtime" delete --force "sandbox$i" 2>/dev/null || true; done
	[[ -z ${server:-} ]] || { kill "$server" && wait "$server"; } || true
	cd /
	[[ -z ${disk:-} ]] || umount "$work"
	rm -rf "$work" /etc/ublk-loop/oci.toml
}

# Create the image with the tree of a small system.
make_image() {
	mkdir -p tree/{bin,proc,sys,dev,etc,tmp,run}
	cp "$(command -v busybox)" tree/bin/busybox
	ln -s busybox tree/bin/sh
	truncate -s 256M images/base.img
	# With the inode tables zeroed here, the kernel does not zero them in each store. A small journal is rewritten sooner.
	mke2fs -q -t ext4 -d tree -E lazy_itable_init=0 -J size=4 images/base.img
}

make_settings() {
	mkdir -p /etc/ublk-loop
	cat >/etc/ublk-loop/oci.toml <<TOML
allowed_images = ["$work/images"]
allowed_stores = ["$work/stores"]
[runtimes]
$runtime = "$(command -v "$runtime")"
TOML
}

# Create the bundle of sandbox $1.
make_bundle() {
	local key='"dev.ublk-loop.rootfs'
	mkdir -p "bundles/$1/rootfs"
	sed -e 's/"terminal": true/"terminal": false/' -e 's|"sh"$|"/bin/busybox", "sleep", "100000"|' -e 's/"readonly": true/"readonly": false/' \
		-e "s|\"ociVersion\"|\"annotations\": {$key.image\": \"$work/images/base.img\", $key.options\": \"rw\", $key.cow\": \"file:$work/stores/$1.cow\"}, &|" \
		config.json >"bundles/$1/config.json"
}

# Print a row of the table: the name $1 of a step, and the milliseconds for each sandbox since the time $2.
took() { awk -v what="$1" -v from="$2" -v to="$EPOCHREALTIME" -v n="$sandboxes" 'BEGIN { printf "%-58s %8.1f ms\n", what, (to - from) * 1000 / n }'; }

# Print a row with the KiB $2 for each sandbox.
each() { awk -v what="$1" -v kib="$2" -v n="$sandboxes" 'BEGIN { printf "%-58s %8.1f KiB\n", what, kib / n }'; }

# Print the KiB that files take on the disk.
allocated() { sync && du -ck "$@" | awk 'END { print $1 }'; }

# Print the KiB of memory of the server, with its part of shared pages.
server_memory() { awk '/^Pss:/ { print $2 }' "/proc/$server/smaps_rollup"; }

# Print the KiB of memory in use, apart from caches.
memory() { awk '/^MemAvailable:/ { available = $2 } /^MemTotal:/ { total = $2 } END { print total - available }' /proc/meminfo; }

# Print the device of each sandbox, in the order of their numbers.
devices_of_sandboxes() {
	ublk-loop list | awk -F '[ ]+' 'match($0, /[0-9]+\.cow/) { print substr($0, RSTART, RLENGTH - 4), $1 }' | sort -n | cut -d ' ' -f 2
}

start_all() {
	local i start=$EPOCHREALTIME
	for ((i = 1; i <= sandboxes; i++)); do ublk-loop cow create "stores/$i.cow" --origin images/base.img; done
	took 'make a store' "$start"
	start=$EPOCHREALTIME
	for ((i = 1; i <= sandboxes; i++)); do
		"ublk-$runtime" run --detach --bundle "bundles/$i" "sandbox$i" </dev/null >>containers.log 2>&1
	done
	took "start a container (ublk-$runtime run)" "$start"
}

write_all() {
	local i start=$EPOCHREALTIME
	for ((i = 1; i <= sandboxes; i++)); do
		"$runtime" exec "sandbox$i" /bin/busybox sh -c "echo sandbox $i >/name; busybox dd if=/dev/zero of=/file bs=64k count=16 conv=fsync 2>/dev/null"
	done
	took "write 1 MiB and flush it ($runtime exec)" "$start"
}

fork_all() {
	local i=0 device start=$EPOCHREALTIME
	others=()
	while read -r device; do
		i=$((i + 1))
		others+=("$(ublk-loop fork "$device" "stores/$i.after" "stores/$i.other" | tail -n 1)")
	done < <(devices_of_sandboxes)
	took 'fork the disk, with a second device' "$start"
	((i == sandboxes))
}

# Show that the last fork has the content of its sandbox.
show_fork() {
	mkdir other
	mount "${others[-1]}" other
	echo "\$ # the second device of sandbox $sandboxes:"
	cat other/name
	[[ $(<other/name) == "sandbox $sandboxes" ]]
	umount other
}

remove_all() {
	local i start=$EPOCHREALTIME
	ublk-loop del "${others[@]}"
	took 'remove a second device' "$start"
	start=$EPOCHREALTIME
	for ((i = 1; i <= sandboxes; i++)); do "$runtime" delete --force "sandbox$i"; done
	local limit=$((SECONDS + 60))
	until [[ -z $(ublk-loop list) ]]; do
		((SECONDS < limit)) || fail "devices are left: $(ublk-loop list)"
		read -r -t 0.01 <> <(:) || true
	done
	took 'remove a container and its device' "$start"
}

fail() {
	echo "demo-sandboxes: error: $*" >&2
	exit 1
}

# Fail if a sandbox has left something.
check_nothing_left() {
	local left
	left=$(grep ublkb /proc/mounts || true)
	left+=$(find /sys/block /sys/class/ublk-char /run/ublk-loop -name 'ublk[bc]*' -o -name '*.json' 2>/dev/null)
	left+=$(find /sys/fs/cgroup -name 'sandbox[0-9]*')
	left+=$("$runtime" list --quiet)
	[[ -z $left ]] || fail "left behind: $left"
}

work=$(mktemp -d)
trap cleanup EXIT
if [[ -n ${DEMO_DISK:-} ]]; then
	disk=$DEMO_DISK
	mke2fs -q -t ext4 "$disk"
	mount "$disk" "$work"
fi
cd "$work"
mkdir images stores bundles
for name in runc crun; do ln -s "$(command -v ublk-loop)" "ublk-$name"; done
PATH=$work:$PATH
make_image
make_settings
"$runtime" spec
for ((i = 1; i <= sandboxes; i++)); do make_bundle "$i"; done
ublk-loop serve 2>server.log &
server=$!
until [[ -S /run/ublk-loop/control.sock ]]; do read -r -t 0.01 <> <(:) || true; done

printf '%s, Linux %s, %d sandboxes over one image of %d KiB. For each:\n' "$runtime" "$(uname -r)" "$sandboxes" "$(allocated images/base.img)"
server_before=$(server_memory) before=$(memory)
start_all
each 'memory of ublk-loop serve' $(($(server_memory) - server_before))
each 'memory of the machine, with the container' $(($(memory) - before))
empty=$(allocated stores)
each 'disk of a started sandbox' "$empty"
write_all
each 'disk of what it wrote' $(($(allocated stores) - empty))
before_fork=$(allocated stores)
fork_all
each 'disk of a fork' $(($(allocated stores) - before_fork))
show_fork
remove_all
check_nothing_left
echo "\$ # no device, mount, container or cgroup is left"
