#!/usr/bin/env bash
# The main job on a real image: on this machine where it has ublk and we are root, in a virtual machine elsewhere.
set -euo pipefail

here=$(dirname "$(realpath "$0")")
binary=$here/../bin/ublk-loop
kernel=${1:-7.3}

if [[ $EUID -eq 0 ]] && { [[ -e /dev/ublk-control ]] || modprobe -q ublk_drv 2>/dev/null; }; then
	"$here/setup.sh"
	PATH=$(dirname "$binary"):$PATH exec "$here/demo-guest.sh"
fi
echo "No ublk here (or not root): starting a virtual machine with kernel $kernel"
exec "$here/vm.sh" run "$kernel" --file "$binary:/usr/bin/ublk-loop" --file "$here/demo-guest.sh:/demo-guest.sh" -- bash /demo-guest.sh
