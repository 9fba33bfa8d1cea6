#!/bin/sh
# Runs after a removal. dpkg passes "purge" for a removal with all data, and rpm passes the number of versions that stay.
set -e

[ ! -d /run/systemd/system ] || systemctl daemon-reload || true
case ${1:-} in
purge | 0)
	# Another installation may have devices or a server by now.
	set -- /sys/class/ublk-char/ublkc* /run/ublk-loop/*.sock
	for other in "$@"; do [ ! -e "$other" ] || exit 0; done
	rm -rf /run/ublk-loop
	;;
esac
