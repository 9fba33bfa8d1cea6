package debian

import (
	"strings"
	"testing"
)

// udevScript attaches an image with a partition table and file systems, and looks for the links to
// its device.
const udevScript = `
set -ex
cd /test
udevadm control --reload
truncate -s 8M plain.img
mke2fs -q -t ext4 -L plainlabel -U 11111111-2222-3333-4444-555555555555 plain.img
./ublk-losetup -f --show --loop-ref 'my disk' plain.img
udevadm settle
inode=$(stat -c %i plain.img) major=$(stat -c %Hd:%Ld plain.img)
for link in by-ublk-inode/$major-$inode 'by-ublk-ref/my\x20disk' by-uuid/11111111-2222-3333-4444-555555555555 by-label/plainlabel; do
	test "$(readlink -f "/dev/disk/$link")" = /dev/ublkb0
done
test "$(stat -c %a /run/ublk-loop/0.udev)" = 600
# A new file system gets its link after the last writer has closed the device.
mke2fs -q -F -t ext4 -L newlabel /dev/ublkb0
udevadm settle
until test -e /dev/disk/by-label/newlabel; do udevadm settle; done
./ublk-losetup -d /dev/ublkb0
udevadm settle
test ! -e /dev/disk/by-ublk-inode/$major-$inode
test ! -e /dev/disk/by-ublk-ref
test -z "$(ls /run/ublk-loop 2>/dev/null)"
# Partitions, of a device of serve.
./ublk-loop serve & 
until ./ublk-loop top -n 1 >/dev/null 2>&1; do :; done
base64 -d table | dd of=disk.img conv=sparse status=none
truncate -s 8M disk.img
device=$(./ublk-losetup -f --show -P disk.img)
udevadm settle
inode=$(stat -c %i disk.img)
test "$(readlink -f /dev/disk/by-ublk-inode/$major-$inode)" = "$device"
test "$(readlink -f /dev/disk/by-ublk-inode/$major-$inode-part1)" = "${device}p1"
test "$(readlink -f /dev/disk/by-partuuid/4f68bce3-e8cd-4db1-96e7-fbcaf984b709)" = "${device}p1"
./ublk-losetup -d "$device"
kill %1
wait %1
echo linked
`

// udev makes links to devices by a file of the server, and finds file systems on them, also
// where its own rules do not know ublk devices.
func TestLongUdevLinks(t *testing.T) {
	for _, suite := range []string{"bookworm", "trixie"} {
		t.Run(suite, func(t *testing.T) {
			needProgram(t, "sfdisk", "fdisk")
			m := newMachine(t, suite)
			dir := t.TempDir()
			m.run("env", "CGO_ENABLED=0", "make", "-C", top(t), "-s", "install", "DESTDIR="+dir, "BIN="+dir+"/bin")
			m.copy(dir+"/usr/local/bin/ublk-loop", "/test/ublk-loop")
			m.link("/test/ublk-losetup", "ublk-loop")
			m.copy(dir+"/usr/local/lib/udev/rules.d/61-ublk-loop.rules", "/usr/lib/udev/rules.d/61-ublk-loop.rules")
			m.run("sh", "-c", `truncate -s 8M "$1/disk" && echo 'start=2048, type=L, uuid=4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709' | sfdisk -q --label gpt "$1/disk" && head -c 65536 "$1/disk" | base64 >"$1/table"`, "sh", dir)
			m.copy(dir+"/table", "/test/table")
			if r := m.boot(udevScript); !strings.HasSuffix(r.out, "linked\n") {
				t.Errorf("the script says\n%s", r.out)
			}
		})
	}
}
