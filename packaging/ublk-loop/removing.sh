#!/bin/sh
# Runs before a removal. dpkg and rpm also run it before they replace an old version: dpkg then passes "upgrade", and rpm
# passes the number of versions that stay.
set -e

case ${1:-} in
upgrade | failed-upgrade | deconfigure | 1) exit 0 ;;
esac

# Without the program, the data of a device in use could not be flushed.
devices=$(ublk-loop list 2>/dev/null | grep -o '^/dev/ublkb[0-9]*' | tr '\n' ' ') || true
if [ -n "$devices" ]; then
	echo "ublk-loop: error: devices exist: $devices" >&2
	echo "hint: unmount them, and run ublk-loop del --all" >&2
	exit 1
fi
if [ -d /run/systemd/system ]; then
	systemctl -q disable --now ublk-loop-sweep.timer ublk-loop.service ublk-loop.socket || true
fi
