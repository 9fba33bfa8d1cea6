package debian

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// prepare installs the package and makes images.
const prepare = `
set -e
cd /test
dpkg -i ublk-loop.deb
for name in hand serve fstab oneshot term; do
	truncate -s 64M $name.img
	mke2fs -q -t ext4 $name.img
done
mkdir /mnt/hand /mnt/inner /mnt/serve /mnt/fstab /mnt/oneshot /mnt/term
mkdir -p /var/log/journal # the journal of a boot is there in the next one
systemctl enable -q ublk-loop.socket
cat >/etc/systemd/system/attach.service <<UNIT
[Service]
Type=oneshot
ExecStart=/usr/bin/ublk-loop add --standalone /test/oneshot.img
StandardOutput=truncate:/run/attached
UNIT
echo '/test/fstab.img /mnt/fstab ublk-loop x-systemd.requires=ublk-loop.service 0 0' >>/etc/fstab
`

// units checks what a server that add starts is for systemd.
const units = `
set -e
cd /test
pid() { ublk-loop list | awk -v d=$1 '$1 == d {print $(NF-1)}'; }
unit() { sed -n 's,.*/,,p' /proc/$(pid $1)/cgroup; }
mounted() { grep -q " $1 " /proc/self/mounts; }

# From a unit that ends.
systemctl start attach.service
device=$(cat /run/attached)
[ "$(unit $device)" = ublk-loop-${device#/dev/}-$(pid $device).scope ]
mount $device /mnt/oneshot
echo "description: $(systemctl show -P Description $(unit $device))"
echo "kill mode: $(systemctl show -P KillMode $(unit $device))"
echo "time to stop: $(systemctl show -P TimeoutStopUSec $(unit $device))"
echo "paths: $(systemctl show -P RequiresMountsFor $(unit $device))"
journalctl --sync
journalctl -q -o cat -u $(unit $device)

# SIGTERM is refused while the device is mounted, and obeyed the second time.
term=$(ublk-loop add --standalone term.img)
mount $term /mnt/term
server=$(pid $term) scope=$(unit $term)
kill $server
until journalctl -q -o cat -u $scope | grep -q refused; do kill -0 $server; done
echo kept >/mnt/term/file
sync -f /mnt/term
kill -0 $server
kill $server
while kill -0 $server 2>/dev/null; do :; done
! ublk-loop list | grep "^$term " || exit 1
umount /mnt/term
# An unmounted device ends at once, and its unit is gone.
term=$(ublk-loop add --standalone term.img) server=$(pid $term) scope=$(unit $term)
child=$(cat /proc/$server/task/*/children)
kill -0 $child
systemctl stop $scope
! kill -0 $server 2>/dev/null || exit 1
! kill -0 $child 2>/dev/null || exit 1
! ublk-loop list | grep "^$term " || exit 1
[ "$(systemctl show -P LoadState $scope)" = not-found ]
`

// mounts attaches and mounts in all ways, and leaves a writer on each file system.
const mounts = `
hand=$(ublk-loop add --standalone hand.img)
mount $hand /mnt/hand
truncate -s 32M /mnt/hand/inner.img
mke2fs -q -t ext4 /mnt/hand/inner.img
inner=$(ublk-loop add --standalone /mnt/hand/inner.img)
mount $inner /mnt/inner
mount -t ublk-loop serve.img /mnt/serve
mounted /mnt/fstab
for name in hand inner serve fstab oneshot; do
	systemd-run -q --unit writer-$name bash -c 'n=0; while n=$((n + 1)); do
		printf %064000d $n >/mnt/'$name'/file.new; sync -d /mnt/'$name'/file.new; mv /mnt/'$name'/file.new /mnt/'$name'/file
		echo $n >/run/writer-'$name'; done'
done
for name in hand inner serve fstab oneshot; do
	until [ "$(cat /run/writer-$name 2>/dev/null || echo 0)" -gt 3 ]; do :; done
done
ublk-loop list
for device in $hand $inner $(cat /run/attached); do
	echo "child of $device: $(cat /proc/$(pid $device)/task/*/children)"
done
echo "shutdown at $(cut -d ' ' -f 1 /proc/uptime)"
`

// lastBoot prints how the servers of single devices ended in the last boot.
const lastBoot = `
journalctl -q -b -1 -o cat _COMM=ublk-loop | sed -n 's/^ended/last boot: ended/p'
`

// byHand only mounts by hand, so that no other unit keeps the server. The data is not yet written at the
// shutdown, and has to be until the unmount returns.
const byHand = `
set -e
cd /test
umount /mnt/fstab
sed -i '/fstab.img/d' /etc/fstab
systemctl daemon-reload
mount -t ublk-loop serve.img /mnt/serve
printf %048000000d 1 >/mnt/serve/file
echo "shutdown at $(cut -d ' ' -f 1 /proc/uptime)"
`

// stopTimeout is systemd's DefaultTimeoutStopSec in seconds. A shutdown in which one thing waits for
// another takes longer than half of it.
const stopTimeout = 90

// A server that add starts is a unit of its own. At a shutdown under I/O, all that is mounted on
// devices ends before the servers, with fstab or by hand, and one server after another if one has its
// file on the device of the other. All file systems are clean then.
func TestLongDebianShutdown(t *testing.T) {
	m := newMachine(t, "trixie")
	m.copy(one(t, packages(t)+"/ublk-loop_*.deb"), "/test/ublk-loop.deb")
	m.boot(prepare)
	r := m.boot(units + mounts)
	for _, want := range []string{
		"description: /dev/ublkb1 of /test/oneshot.img\n", "kill mode: control-group\n", "time to stop: 10min\n", "paths: /test/oneshot.img\n", "serving id=1 device=/dev/ublkb1 ",
	} {
		if !strings.Contains(r.out, want) {
			t.Errorf("no %q in\n%s", want, r.out)
		}
	}
	if n := len(regexp.MustCompile(`(?m)^child of \S+: [0-9]+ *$`).FindAllString(r.out, -1)); n != 3 {
		t.Errorf("%d devices are served by a process of their own, want 3:\n%s", n, r.out)
	}
	m.shutsDown(r)
	for _, name := range []string{"serve", "fstab", "oneshot"} {
		m.isClean(m.disk, "/test/"+name+".img", 64000)
	}
	m.isClean(m.isClean(m.disk, "/test/hand.img", 64000), "/inner.img", 64000)
	r = m.boot(lastBoot + byHand)
	m.endedCleanly(r.out)
	m.shutsDown(r)
	m.isClean(m.disk, "/test/serve.img", 48000000)
}

// endedCleanly checks that servers ended without an error at the last shutdown, such as that the process that
// served their requests had ended before. The journal may lack the one that ended last.
func (m *machine) endedCleanly(out string) {
	m.Helper()
	ended := regexp.MustCompile(`(?m)^last boot: (ended .*)$`).FindAllStringSubmatch(out, -1)
	seen := map[string]bool{}
	for _, line := range ended {
		seen[line[1]] = true
		if strings.Contains(line[1], "error") {
			m.Errorf("a server %s", line[1])
		}
	}
	for _, want := range []string{"ended id=1", "ended id=3"} { // oneshot, inner
		if !seen[want] {
			m.Errorf("the journal of the last boot lacks %q: %q", want, ended)
		}
	}
}

// shutsDown checks that a boot ended in order and in time.
func (m *machine) shutsDown(r *report) {
	m.Helper()
	began, ended := m.seconds(r.out, `shutdown at (\S+)`), m.seconds(r.console, `\[ *(\S+)\] reboot: Power down`)
	took := ended - began
	bad := regexp.MustCompile(`(?im)^.*(failed unmounting|failed to unmount|i/o error|ext4-fs error|ext4-fs warning|timed out|refused).*$`).FindAllString(r.console, -1)
	if took > stopTimeout/2 || len(bad) > 0 {
		m.Errorf("the shutdown took %.1f s, and the console has %q\nscript:\n%s\nconsole:\n%s", took, bad, r.out, tail(r.console, 150))
	}
	m.Logf("the shutdown took %.1f s", took)
}

// seconds returns the number that a pattern finds.
func (m *machine) seconds(text, pattern string) float64 {
	m.Helper()
	found := regexp.MustCompile(pattern).FindStringSubmatch(text)
	if found == nil {
		m.Fatalf("no %s in\n%s", pattern, tail(text, 40))
	}
	n, err := strconv.ParseFloat(found[1], 64)
	if err != nil {
		m.Fatal(err)
	}
	return n
}

// isClean checks the file system in a file of another, and that its file has as many bytes as
// expected. It returns a copy of the file system.
func (m *machine) isClean(disk, path string, bytes int) string {
	m.Helper()
	image := filepath.Join(m.TempDir(), filepath.Base(path))
	m.run("debugfs", "-R", fmt.Sprintf("dump %s %s", path, image), disk)
	if state := m.run("dumpe2fs", "-h", image); !strings.Contains(state, "Filesystem state:         clean\n") || strings.Contains(state, "needs_recovery") {
		m.Errorf("%s was not unmounted:\n%s", path, state)
	}
	m.run("e2fsck", "-f", "-n", image)
	if size := len(m.run("debugfs", "-R", "cat /file", image)); size != bytes {
		m.Errorf("%s: the file has %d bytes, want %d", path, size, bytes)
	}
	return image
}
