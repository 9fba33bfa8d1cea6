#!/usr/bin/env bash
# Run the demo of copy-on-write: on this machine if it has ublk and the user is root, otherwise in a virtual machine.
set -euo pipefail

here=$(dirname "$(realpath "$0")")
binary=$here/../bin/ublk-loop
kernel=${1:-7.3}

if [[ $EUID -eq 0 ]] && { [[ -e /dev/ublk-control ]] || modprobe -q ublk_drv 2>/dev/null; }; then
	"$here/setup.sh"
	PATH=$(dirname "$binary"):$PATH exec "$here/demo-cow-guest.sh"
fi
echo "No ublk here (or not root): starting a virtual machine with kernel $kernel"
exec "$here/vm.sh" run "$kernel" --file "$binary:/usr/bin/ublk-loop" --file "$here/demo-cow-guest.sh:/demo-cow-guest.sh" -- bash /demo-cow-guest.sh
