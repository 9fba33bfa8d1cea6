#!/bin/sh
# Runs before a removal. dpkg and rpm also run it before they replace an old version: dpkg then passes "upgrade", and rpm
# passes the number of versions that stay.
set -e

case ${1:-} in
upgrade | failed-upgrade | deconfigure | 1) exit 0 ;;
esac
[ ! -d /run/systemd/system ] || systemctl -q disable --now ublk-loop-snapshotter.service || true
