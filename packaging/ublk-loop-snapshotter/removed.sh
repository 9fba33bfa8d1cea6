#!/bin/sh
# Runs after a removal. dpkg passes "purge" for a removal with all data.
set -e

[ ! -d /run/systemd/system ] || systemctl daemon-reload || true
[ "${1:-}" != purge ] || rm -rf --one-file-system /var/lib/ublk-loop/snapshotter
