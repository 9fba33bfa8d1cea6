package debian

import (
	"os"
	"strings"
	"testing"
)

// readmeCommands returns the indented commands of README's section "Install" that begin with one of the
// words, without their comments.
func readmeCommands(t testing.TB, words ...string) []string {
	t.Helper()
	text, err := os.ReadFile(top(t) + "/README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "\n## Install\n")
	section, _, _ = strings.Cut(section, "\n## ")
	var commands []string
	for line := range strings.Lines(section) {
		command, indented := strings.CutPrefix(line, "    ")
		command, _, _ = strings.Cut(command, " #")
		if word, _, _ := strings.Cut(command, " "); indented {
			for _, w := range words {
				if word == w {
					commands = append(commands, strings.TrimSpace(command))
				}
			}
		}
	}
	return commands
}

// newUser is what a new user does in a clean Debian, with README's commands. Before and after it lists
// the files of the machine.
const newUser = `
set -e
cd /test
everything() {
	find / -xdev \( -path /proc -o -path /var/log -o -path /var/cache -o -path /var/lib/apt -o -path /var/lib/dpkg \
		-o -path /var/lib/systemd -o -path /var/backups \) -prune -o -print | LC_ALL=C sort
	systemctl list-unit-files --no-legend
	ls -d /run/ublk-loop /dev/ublkb* 2>/dev/null || true
}
everything >/run/before
export DEBIAN_FRONTEND=noninteractive
mkdir -p bin/packages && cp old/* bin/packages/
INSTALL
test ! -e /run/ublk-loop || test "$(stat -c %a /run/ublk-loop)" = 700
truncate -s 64M disk.img
mke2fs -q disk.img
COMMANDS
man=$(dpkg -L ublk-loop | grep man8/ublk-loop.8); zcat $man | grep -q 'TH UBLK-LOOP'
echo "first screen"

# The same with mount(8) and a server of many devices.
systemctl start ublk-loop.socket
mount -t ublk-loop disk.img /mnt
dd if=/dev/urandom of=/mnt/file bs=1M count=8 status=none
sync -f /mnt
test "$(readlink /proc/$(systemctl show -P MainPID ublk-loop.service)/exe)" = /usr/bin/ublk-loop
before=$(systemctl show -P MainPID ublk-loop.service)
# Verified I/O that ends when /run/stop exists.
(
	n=0
	while [ ! -e /run/stop ]; do
		printf '%04096d' $n >/run/block
		dd if=/run/block of=/mnt/io bs=4096 oflag=direct status=none || { echo write $n >>/run/failed; break; }
		dd if=/mnt/io bs=4096 iflag=direct status=none | cmp - /run/block || { echo read $n >>/run/failed; break; }
		n=$((n + 1))
		echo $n >/run/rounds
	done
) &
io=$!
trap 'touch /run/stop' EXIT
until [ "$(cat /run/rounds 2>/dev/null || echo 0)" -gt 3 ]; do :; done
dpkg -i new/ublk-loop_*.deb
test "$(systemctl show -P MainPID ublk-loop.service)" = "$before"
test "$(sha256sum </proc/$before/exe)" = "$(sha256sum </usr/bin/ublk-loop)"
test "$(sha256sum <old.program)" != "$(sha256sum </usr/bin/ublk-loop)"
rounds=$(cat /run/rounds)
until [ "$(cat /run/rounds)" -gt $((rounds + 3)) ]; do kill -0 $io; done
touch /run/stop
wait $io
test ! -e /run/failed
echo "upgraded"

# A removal is refused while there is a device.
! apt-get -q -y purge ublk-loop || exit 1
mountpoint -q /mnt
test -e /usr/bin/ublk-loop
# Also if the program cannot tell whose the device is.
mv /usr/bin/ublk-loop /usr/bin/program
ln -s /bin/false /usr/bin/ublk-loop
! apt-get -q -y purge ublk-loop || exit 1
mv /usr/bin/program /usr/bin/ublk-loop
mountpoint -q /mnt
test -e /usr/bin/ublk-loop
umount /mnt
until [ -z "$(ublk-loop list)" ] || ! ublk-loop list | grep -q /dev/; do :; done
apt-get -q -y purge ublk-loop
rm -r bin disk.img
everything >/run/after
diff /run/before /run/after
! grep -l ublk-loop /proc/[0-9]*/comm || exit 1
echo "nothing left"

# A device that somebody gets while the removal stops the server keeps the package.
dpkg -i new/ublk-loop_*.deb
truncate -s 64M disk.img
systemctl start ublk-loop.socket ublk-loop.service
mkdir /run/systemd/system/ublk-loop.service.d
printf '[Service]\nExecStopPost=+/usr/bin/ublk-loop add --standalone /test/disk.img\n' >/run/systemd/system/ublk-loop.service.d/add.conf
systemctl daemon-reload
! dpkg --remove ublk-loop || exit 1
rm -r /run/systemd/system/ublk-loop.service.d
systemctl daemon-reload
systemctl is-active ublk-loop.socket ublk-loop.service
ublk-loop list
ublk-loop del --all
echo "kept"

# A purge leaves the state of devices that another installation has.
cp /usr/bin/ublk-loop /usr/local/bin/
dpkg --remove ublk-loop
hash -r
device=$(ublk-loop add --standalone disk.img)
dpkg --purge ublk-loop
test -e /run/ublk-loop/${device#/dev/ublkb}.json
ublk-loop del $device
echo "state"
`

// A new user installs the package in a clean Debian and follows README's first screen. An upgrade under
// I/O gives the server the new program without an error, and a purge leaves nothing.
func TestGuestDebianPackage(t *testing.T) {
	install := readmeCommands(t, "apt")
	commands := readmeCommands(t, "ublk-loop")
	if len(install) != 1 || len(commands) != 3 {
		t.Fatalf("README's first screen has the commands %q and %q, want 1 and 3", install, commands)
	}
	m := newMachine(t, "trixie")
	old, later := build(t, "RELEASE=0.0.0-alpha", "VERSION=older", "FORMATS=deb"), packages(t)
	m.copy(one(t, old+"/ublk-loop_*.deb"), "/test/old/ublk-loop_0.0.0~alpha_amd64.deb")
	m.copy(one(t, later+"/ublk-loop_*.deb"), "/test/new/ublk-loop_0.0.0~git_amd64.deb")
	m.run("sh", "-c", "mkdir "+m.tree+"/x && dpkg-deb -x "+one(t, old+"/ublk-loop_*.deb")+" "+m.tree+"/x && mv "+m.tree+"/x/usr/bin/ublk-loop "+
		m.tree+"/test/old.program && rm -r "+m.tree+"/x")
	script := strings.NewReplacer(
		"INSTALL", strings.Replace(install[0], "apt install", "apt-get install -q -y", 1),
		"COMMANDS", strings.Join(commands, "\n"),
	).Replace(newUser)
	r := m.boot(script)
	for _, want := range []string{"first screen\n", "upgraded\n", "nothing left\n", "kept\n", "state\n"} {
		if !strings.Contains(r.out, want) {
			t.Errorf("no %q in\n%s", want, r.out)
		}
	}
	t.Logf("the machine took %v", r.took)
}
