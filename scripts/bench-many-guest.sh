#!/usr/bin/env bash
# bench-many.sh runs this part in the virtual machine.
set -euo pipefail

# Print a line of the table: $2 devices with depth $3, served as $1 says.
measure() {
	local how=$1 n=$2 depth=$3 device jobs=()
	local flags=(--read-only --direct-io=on --queues 1 --depth 32)
	[[ $how == 'one server' ]] || flags+=(--standalone)
	for ((i = 0; i < n; i++)); do
		device=$(ublk-loop add "${flags[@]}" /dev/nullb0)
		jobs+=("--name=$i" "--filename=$device")
	done
	# Let the Go runtimes of the servers finish their work after the start.
	sleep 2
	fio --output-format=terse --terse-version=3 --ioengine=io_uring --direct=1 --rw=randread --bs=4k --iodepth="$depth" --runtime=2 \
		--time_based --group_reporting --thread "${jobs[@]}" | awk -F ';' -v line="$how, $n devices, depth $depth" '{print line ": " $8 " IOPS"}'
	ublk-loop del --all
}

ublk-loop serve 2>/dev/null &
until ublk-loop list && [[ -S /run/ublk-loop/control.sock ]]; do sleep 0.1; done >/dev/null
for n in 8 32; do
	for depth in 1 4; do
		measure 'one server' "$n" "$depth"
		measure 'a server each' "$n" "$depth"
	done
done
kill %1
wait
