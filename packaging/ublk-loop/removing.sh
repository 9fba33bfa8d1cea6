#!/bin/sh
# Runs before a removal. dpkg and rpm also run it before they replace an old version: dpkg then passes "upgrade", and rpm
# passes the number of versions that stay.
set -e

case ${1:-} in
upgrade | failed-upgrade | deconfigure | 1) exit 0 ;;
esac

# Print the devices. If the program fails, all devices of the driver count, because some may be its own.
find_devices() {
	if list=$(ublk-loop list 2>/dev/null); then
		printf '%s\n' "$list" | grep -o '^/dev/ublkb[0-9]*' || true
	else
		for device in /sys/block/ublkb*; do
			[ ! -e "$device" ] || echo "/dev/${device##*/}"
		done
	fi
}

# Without the program, the data of a device in use could not be flushed.
refuse_devices() {
	devices=$(find_devices | tr '\n' ' ')
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
