#!/bin/sh
# shellcheck disable=SC1091 # of dracut
# Makes the initqueue wait until the device exists.

command -v getarg >/dev/null || . /lib/dracut-lib.sh

if getarg rd.ublk-loop= >/dev/null; then
	# shellcheck disable=SC2154 # dracut sets hookdir
	echo '[ -b /dev/ublkb0 ]' >"$hookdir/initqueue/finished/ublk-loop.sh"
fi
