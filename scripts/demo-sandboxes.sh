#!/usr/bin/env bash
# Run the demo of many containers: on this machine if it has ublk and runc and the user is root, otherwise in a virtual
# machine. Arguments: the number of sandboxes, the runtime, the kernel of the virtual machine. With CLOCK=instructions, the
# times are counted instructions of an emulated CPU, which repeat on a busy machine.
set -euo pipefail

here=$(dirname "$(realpath "$0")")
binary=$here/../bin/ublk-loop
sandboxes=${1:-200} runtime=${2:-runc} kernel=${3:-uml}

if [[ $EUID -eq 0 && ! -e /etc/ublk-loop/oci.toml && ! -e /run/ublk-loop/control.sock ]] &&
	{ [[ -e /dev/ublk-control ]] || modprobe -q ublk_drv 2>/dev/null; }; then
	"$here/setup.sh"
	PATH=$(dirname "$binary"):$PATH exec "$here/demo-sandboxes-guest.sh" "$sandboxes" "$runtime"
fi
echo 'No ublk here, not root, or set up already: starting a virtual machine'
options=(--disk 8G --timeout 3600)
if [[ ${CLOCK:-} == instructions ]]; then
	kernel=${3:-7.3}
	options+=(--icount)
fi
exec "$here/vm.sh" run "$kernel" "${options[@]}" --file "$binary:/usr/bin/ublk-loop" --file "$here/demo-sandboxes-guest.sh:/demo.sh" \
	-- bash -c "DEMO_DISK=\$(ls /dev/vda /dev/ubda 2>/dev/null | head -n 1) exec bash /demo.sh $sandboxes $runtime"
