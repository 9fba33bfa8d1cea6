#!/bin/sh
# Runs before a removal. dpkg and rpm also run it before they replace an old version: dpkg then passes "upgrade", and rpm
# passes the number of versions that stay.
set -e

case ${1:-} in
upgrade | failed-upgrade | deconfigure | 1) exit 0 ;;
esac

# Without the program, the data of a device in use could not be flushed.
refuse_devices() {
	devices=$(ublk-loop list 2>/dev/null | grep -o '^/dev/ublkb[0-9]*' | tr '\n' ' ') || true
	[ -n "$devices" ] || return 0
	echo "ublk-loop: error: devices exist: $devices" >&2
	echo "hint: unmount them, and run ublk-loop del --all" >&2
	exit 1
}

refuse_devices
[ -d /run/systemd/system ] || exit 0
systemctl -q stop ublk-loop.service ublk-loop.socket || true
# Somebody may have got a device meanwhile. The server takes it over again.
trap 'systemctl -q start ublk-loop.service || true' EXIT
refuse_devices
trap - EXIT
systemctl -q disable --now ublk-loop-sweep.timer ublk-loop.service ublk-loop.socket || true
