package debian

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// initramfs is a program that makes an initramfs.
type initramfs struct {
	packages []string
	// make writes the initramfs of kernel $version to /boot/initramfs-$version.img, with gzip.
	make string
	// ends is what the kernel says at the end of a shutdown.
	ends string
}

const belowUUID = "6a3c9c0e-5f1d-4b8c-9d55-0a6f3c1b7e21"

// onRoot runs in both boots. The first one ends with a reboot, right after a write.
const onRoot = `
set -e
exec 2>&1
test "$(findmnt -n -o SOURCE /)" = /dev/ublkb0
server=$(ublk-loop list | awk '$1 == "/dev/ublkb0" {print $(NF-1)}')
test "$(head -c 1 /proc/$server/cmdline)" = @
echo "server in $(cat /proc/$server/cgroup)"
! ublk-loop del --force /dev/ublkb0 || exit 1
! ublk-loop del /dev/ublkb0 || exit 1
! ublk-loop upgrade || exit 1
truncate -s 1M /test/file
! ublk-loop add --root-storage /test/file || exit 1
if [ -e /test/again ]; then
	rm /test/ending
	echo "again $(wc -c </test/again)"
else
	echo reboot >/test/ending
	printf %064000d 1 >/test/again
fi
echo "shutdown at $(cut -d ' ' -f 1 /proc/uptime)"
`

// A machine boots from an image in a file of its disk, with an initramfs. It reboots and shuts down, and
// leaves both file systems clean.
func TestLongDebianRootOfDracut(t *testing.T) {
	bootsFromImage(t, &initramfs{
		packages: []string{"dracut-core", "zstd", "cpio"},
		make:     `dracut --quiet --no-hostonly --gzip --add ublk-loop --kver "$version" "/boot/initramfs-$version.img"`,
		ends:     "EXT4-fs (ubda): unmounting filesystem " + belowUUID,
	})
}

// The same without a way back to the initramfs.
func TestLongDebianRootOfInitramfsTools(t *testing.T) {
	bootsFromImage(t, &initramfs{
		packages: []string{"initramfs-tools", "zstd"},
		make:     `mkinitramfs -c gzip -o "/boot/initramfs-$version.img" "$version"`,
		ends:     "EXT4-fs (ublkb0): re-mounted ",
	})
}

func bootsFromImage(t *testing.T, kind *initramfs) {
	m := newMachine(t, "trixie", kind.packages...)
	m.copy(one(t, packages(t)+"/ublk-loop_*.deb"), "/test/ublk-loop.deb")
	m.write("/etc/fstab", 0o644, "/dev/ublkb0 / ext4 defaults 0 1\n")
	m.chroot("set -e\ndpkg -i /test/ublk-loop.deb\nversion=$(ls /usr/lib/modules)\n" + kind.make)
	image := filepath.Join(m.TempDir(), "initramfs")
	// The kernel of the test has no decompressor.
	m.run("sh", "-c", "gunzip <"+one(t, m.tree+"/boot/initramfs-*.img")+" >"+image)
	m.script(onRoot)
	m.moveToImage()
	m.boots = []string{"initrd=" + image, "root=/dev/ublkb0", "ro", "rd.ublk-loop=/images/root.img@UUID=" + belowUUID}
	for _, want := range []string{"", "again 64000\n"} {
		r := m.start()
		for _, w := range []string{want, "the device is for the root file system", "no longer in use", "comes from the initramfs", "this is no initramfs"} {
			if !strings.Contains(r.out, w) {
				t.Errorf("no %q in\n%s", w, r.out)
			}
		}
		m.endsClean(r)
		if !strings.Contains(r.console, kind.ends) {
			t.Errorf("no %q in\n%s", kind.ends, tail(r.console, 60))
		}
	}
}

// chroot runs a script in the machine's files, before there is a disk.
func (m *machine) chroot(script string) {
	m.Helper()
	m.run("unshare", "--mount", "sh", "-c", `cd "$1" && mount -t proc proc proc && mount --bind /dev dev && mount -t tmpfs run run &&
		mount -t tmpfs tmp tmp && chroot . bash -c "$2"`, "sh", m.tree, script)
}

// moveToImage makes a disk whose file /images/root.img is what would have been the machine's disk.
func (m *machine) moveToImage() {
	m.Helper()
	m.makeDisk()
	tree := m.TempDir()
	m.run("mkdir", tree+"/images")
	m.run("mv", m.disk, tree+"/images/root.img")
	m.disk = filepath.Join(m.TempDir(), "below")
	m.run("truncate", "-s", "1500M", m.disk)
	m.run("mke2fs", "-q", "-t", "ext4", "-U", belowUUID, "-d", tree, m.disk)
	m.run("rm", "-r", tree+"/images")
}

// endsClean checks that a shutdown was in order, and that neither file system has a journal to replay.
func (m *machine) endsClean(r *report) {
	m.Helper()
	if bad := regexp.MustCompile(`(?im)^.*(i/o error|ext4-fs error|timed out|kernel panic).*$`).FindAllString(r.console, -1); len(bad) > 0 {
		m.Errorf("the console has %q\nconsole:\n%s", bad, tail(r.console, 150))
	}
	image := filepath.Join(m.TempDir(), "root.img")
	m.debugfs("dump /images/root.img " + image)
	for _, disk := range []string{m.disk, image} {
		if state := m.run("dumpe2fs", "-h", disk); !strings.Contains(state, "Filesystem state:         clean\n") || strings.Contains(state, "needs_recovery") {
			m.Errorf("%s is not clean:\n%s\nconsole:\n%s", disk, state, tail(r.console, 150))
		}
		m.run("e2fsck", "-f", "-n", disk)
	}
	m.Logf("the machine took %v", r.took)
}
