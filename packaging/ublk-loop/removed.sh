#!/bin/sh
# Runs after a removal. dpkg passes "purge" for a removal with all data, and rpm passes the number of versions that stay.
set -e

[ ! -d /run/systemd/system ] || systemctl daemon-reload || true
case ${1:-} in
purge | 0) rm -rf /run/ublk-loop ;;
esac
