package debian

import (
	"strings"
	"testing"
)

// links makes devices and looks for their links, on a systemd that makes none for ublk devices.
const links = `
set -e
cd /test
dpkg -i ublk-loop.deb
udevadm control --reload
truncate -s 64M fs.img parts.img
mke2fs -q -t ext4 -L first -U 01234567-89ab-cdef-0123-456789abcdef fs.img
printf 'label: gpt\nsize=20M, name=part, uuid=11111111-2222-3333-4444-555555555555\n' | sfdisk -q parts.img
fs=$(ublk-loop add fs.img)
parts=$(ublk-loop add --partscan parts.img)
udevadm settle
link() { [ "$(readlink -f /dev/disk/$1)" = $2 ] || { echo "$1 is $(readlink -f /dev/disk/$1), want $2"; exit 1; }; }
link by-uuid/01234567-89ab-cdef-0123-456789abcdef $fs
link by-label/first $fs
link by-partuuid/11111111-2222-3333-4444-555555555555 ${parts}p1
link by-partlabel/part ${parts}p1

# A new file system is noticed, and systemd has a unit for it.
mke2fs -q -t ext4 -L second -U 89abcdef-0123-4567-89ab-cdef01234567 ${parts}p1
until udevadm settle && [ -e /dev/disk/by-label/second ]; do :; done
systemctl is-active -q dev-disk-by\\x2dlabel-second.device
systemctl is-active -q ublk-loop-${fs#/dev/}-*.scope
ublk-loop del $fs $parts
udevadm settle
[ ! -L /dev/disk/by-label/first ]
[ ! -L /dev/disk/by-partuuid/11111111-2222-3333-4444-555555555555 ]
systemctl --version | head -1
`

// Where systemd is older than 257, the package's rules for udev make the links to file systems and
// partitions, so that fstab can name them.
func TestLongDebianLinks(t *testing.T) {
	m := newMachine(t, "bookworm")
	m.copy(one(t, packages(t)+"/ublk-loop_*.deb"), "/test/ublk-loop.deb")
	if r := m.boot(links); !strings.Contains(r.out, "systemd 252 ") {
		t.Errorf("another systemd than expected: %q", tail(r.out, 3))
	}
}
