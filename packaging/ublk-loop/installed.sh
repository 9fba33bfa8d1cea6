#!/bin/sh
# Runs after an installation or an upgrade.
set -e

modprobe -q ublk_drv || echo "ublk-loop: warning: the kernel module ublk_drv cannot be loaded" >&2

[ -d /run/systemd/system ] || exit 0
systemd-tmpfiles --create ublk-loop.conf || true
systemctl daemon-reload || true
# A reload gives the running server the new program. Its devices stay, and their I/O waits meanwhile. If the reload is
# refused, the old program continues, so the installation does not fail.
if systemctl -q is-active ublk-loop.service; then
	systemctl reload ublk-loop.service ||
		echo "ublk-loop: warning: the server keeps its old program; 'ublk-loop upgrade' says why" >&2
fi
