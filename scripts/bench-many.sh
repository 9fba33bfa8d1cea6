#!/usr/bin/env bash
# Compare many devices in one server with a server for each device: IOPS of 4 KiB random reads over null_blk, by the
# clock of instructions of a virtual machine with one CPU.
set -euo pipefail

here=$(dirname "$(realpath "$0")")
kernel=${1:-7.3}
exec "$here/vm.sh" run "$kernel" --icount --timeout 900 --modules 'ublk_drv null_blk' --file "$here/../bin/ublk-loop:/usr/bin/ublk-loop" \
	--file "$here/bench-many-guest.sh:/bench-many-guest.sh" -- bash /bench-many-guest.sh
