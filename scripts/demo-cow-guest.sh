#!/usr/bin/env bash
# Demo of `make demo-cow`: 20 sandboxes have a writable disk each over one image. Prints time and sizes. Needs root, ublk
# and ublk-loop.
set -euo pipefail

sandboxes=20

show() {
	echo "\$ $*"
	"$@"
}

cleanup() {
	local i
	for ((i = 1; i <= sandboxes; i++)); do
		! findmnt -n "$work/mnt$i" >/dev/null || umount "$work/mnt$i"
	done
	[[ -z ${server:-} ]] || { kill "$server" && wait "$server"; } || true
	rm -rf "$work"
}

# Print the milliseconds since the time $1 in seconds, divided by $2.
milliseconds() { awk -v from="$1" -v to="$EPOCHREALTIME" -v n="$2" 'BEGIN { printf "%.1f ms\n", (to - from) * 1000 / n }'; }

# Print the space that files take.
allocated() { du -ck "$@" | awk 'END { print $1 " KiB" }'; }

work=$(mktemp -d)
trap cleanup EXIT
cd "$work"
mkdir base

show uname -r
show truncate -s 256M base.img
show mkfs.ext4 -q base.img
ublk-loop serve 2>server.log &
server=$!
until [[ -S /run/ublk-loop/control.sock ]]; do read -r -t 0.01 <> <(:) || true; done

echo "\$ # $sandboxes times: ublk-loop add base.img --cow N.cow; mount"
devices=()
start=$EPOCHREALTIME
for ((i = 1; i <= sandboxes; i++)); do
	devices+=("$(ublk-loop add base.img --cow "$i.cow")")
done
echo "attach, each: $(milliseconds "$start" "$sandboxes")"
start=$EPOCHREALTIME
for ((i = 1; i <= sandboxes; i++)); do
	mkdir "mnt$i"
	mount "${devices[i - 1]}" "mnt$i"
	echo "sandbox $i" >"mnt$i/name"
done
sync
echo "mount and write, each: $(milliseconds "$start" "$sandboxes")"
show ublk-loop cow info 7.cow
show cat mnt7/name mnt8/name
echo "image:             $(allocated base.img)"
echo "$sandboxes stores together: $(allocated ./*.cow)"

start=$EPOCHREALTIME
show ublk-loop fork "${devices[6]}" after.cow other.cow | tee forked
echo "fork of a mounted disk, with a second device: $(milliseconds "$start" 1)"
devices+=("$(tail -1 forked)")
mkdir other
mount "${devices[sandboxes]}" other
show cat other/name
umount other

for ((i = 1; i <= sandboxes; i++)); do umount "mnt$i"; done
start=$EPOCHREALTIME
ublk-loop del "${devices[@]}"
echo "remove, each: $(milliseconds "$start" "${#devices[@]}")"
show ublk-loop list
