package debian

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// unitsWork starts the units and uses what they start. Their restrictions must not keep them from their work.
const unitsWork = `
set -e
cd /test
dpkg -i ublk-loop.deb ublk-loop-snapshotter.deb
! lsmod | grep -q ublk_drv || rmmod ublk_drv

# A unit of its own loads the driver, because the server cannot.
systemctl start ublk-loop.socket ublk-loop.service
systemctl is-active -q ublk-loop.service
server=$(systemctl show -P MainPID ublk-loop.service)

# The server finds files on mounts that are younger than itself.
mkdir /run/later
mount -t tmpfs none /run/later
truncate -s 64M /run/later/file
device=$(ublk-loop add /run/later/file)
mke2fs -q $device
mount $device /mnt
dd if=/dev/urandom of=/mnt/file bs=1M count=8 status=none
sync -f /mnt
umount /mnt
ublk-loop list
truncate -s 128M /run/later/file
ublk-loop resize $device
systemctl reload ublk-loop.service
e2fsck -fn $device
systemctl kill -s KILL --kill-whom=main ublk-loop.service
until [ "$(systemctl show -P MainPID ublk-loop.service)" != $server ] && systemctl is-active -q ublk-loop.service; do :; done
e2fsck -fn $device
ublk-loop del $device
umount /run/later
server=$(systemctl show -P MainPID ublk-loop.service)
grep -qP '^CapPrm:\t0+$' $(grep -lP "^PPid:\t$server$" /proc/[0-9]*/status) || { journalctl -u ublk-loop.service; exit 1; }
echo "served"

# The server reaches the driver and disks, and no other devices.
(
	echo $BASHPID >/sys/fs/cgroup/system.slice/ublk-loop.service/cgroup.procs
	: <>/dev/ublk-control
	! : </dev/kmsg
) 2>/dev/null
truncate -s 64M /run/disk
disk=$(losetup --find --show /run/disk)
head -c 64 /dev/urandom >/run/key
for what in plain encrypted; do
	case $what in
	plain) device=$(ublk-loop add $disk) ;;
	encrypted)
		key=$(od -An -v -tx1 /run/key | tr -d ' \n')
		device=$(echo "0 131072 crypt aes-xts-plain64 $key 0 $disk 0" | ublk-loop add --on-crash=reissue --table -)
		;;
	esac
	mke2fs -q $device
	systemctl reload ublk-loop.service
	e2fsck -fn $device
	ublk-loop del $device
done
losetup -d $disk
echo "disks"

# With the settings of the manual, metrics come by TCP.
mkdir /etc/systemd/system/ublk-loop.service.d
cat >/etc/systemd/system/ublk-loop.service.d/metrics.conf <<'END'
METRICS
END
systemctl daemon-reload
systemctl restart ublk-loop.service
server=$(systemctl show -P MainPID ublk-loop.service)
for run in started upgraded; do
	test "$(grep -lP '^CapPrm:\t0+$' $(grep -lP "^PPid:\t$server$" /proc/[0-9]*/status) | wc -l)" = 2 # for requests, and for metrics
	exec 3<>/dev/tcp/127.0.0.1/9632
	printf 'GET /metrics HTTP/1.0\r\n\r\n' >&3
	grep -q '^ublk_loop_devices 0' <&3
	exec 3>&-
	systemctl reload ublk-loop.service
done
rm -r /etc/systemd/system/ublk-loop.service.d
systemctl daemon-reload
systemctl restart ublk-loop.service
echo "metrics"

# The snapshotter gives containerd a device of the server.
mkdir -p /var/lib/ublk-loop
mount -t tmpfs none /var/lib/ublk-loop
systemctl start ublk-loop-snapshotter.service
cat >/run/containerd.toml <<'END'
version = 2
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.nri.v1.nri"]
[proxy_plugins.ublk-loop]
type = "snapshot"
address = "/run/ublk-loop/snapshotter.sock"
END
systemd-run --unit=containerd containerd --config /run/containerd.toml
until ctr version; do sleep 0.1; done >/dev/null 2>&1
snapshots() { ctr snapshots --snapshotter ublk-loop "$@"; }
snapshots prepare first >/dev/null
snapshots mounts /mnt first | sh
echo content >/mnt/file
# The server's files are in use also when the snapshotter has other mounts than before.
systemctl restart ublk-loop-snapshotter.service
! umount /var/lib/ublk-loop || exit 1
test "$(cat /mnt/file)" = content
# The snapshotter's sandbox does not keep a mount of the host, and so not its device.
umount /mnt
until snapshots rm first; do sleep 0.1; done 2>/dev/null
while ublk-loop list | grep -q live; do sleep 0.1; done
# Images of any directory, of the size that a label asks for, and layers above others.
mkdir -p /etc/ublk-loop /home/images /srv/images /usr/share/images /tmp/images /tmp/tree /tmp/oci/blobs/sha256
echo 'allowed_images = ["/home/images/", "/srv/images/", "/usr/share/images/", "/tmp/images/"]' >/etc/ublk-loop/oci.toml
systemctl restart ublk-loop-snapshotter.service
blob() {
	digest=$(sha256sum $1 | cut -d ' ' -f 1)
	size=$(stat -c %s $1)
	mv $1 /tmp/oci/blobs/sha256/$digest
	echo '"digest":"sha256:'$digest'","size":'$size
}
echo content >/tmp/tree/content
tar -C /tmp/tree -cf /tmp/layer content
id=sha256:$(sha256sum /tmp/layer | cut -d ' ' -f 1)
layer=$(blob /tmp/layer)
echo '{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["'$id'"]},"config":{}}' >/tmp/config
config=$(blob /tmp/config)
echo '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",
	"config":{"mediaType":"application/vnd.oci.image.config.v1+json",'$config'},
	"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar",'$layer'}]}' >/tmp/manifest
echo '{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json",'$(blob /tmp/manifest)',
	"annotations":{"io.containerd.image.name":"example.org/image:1"}}]}' >/tmp/oci/index.json
echo '{"imageLayoutVersion":"1.0.0"}' >/tmp/oci/oci-layout
tar -C /tmp/oci -cf /tmp/oci.tar .
until ctr images import --snapshotter ublk-loop --local /tmp/oci.tar; do sleep 0.1; done >/dev/null 2>&1
create() {
	name=$1
	shift
	ctr containers create --snapshotter ublk-loop "$@" example.org/image:1 $name
	snapshots mounts /mnt $name | sh
	test "$(cat /mnt/content)" = content
}
create sized --snapshotter-label containerd.io/snapshot/max-size=$((1 << 30))
test $(df --output=size -k /mnt | tail -n 1) -lt 1048576
umount /mnt
for dir in /home /srv /usr/share /tmp; do
	truncate -s 8M $dir/images/image
	mke2fs -q -d /tmp/tree $dir/images/image
	create image-$(basename $dir) --snapshotter-label containerd.io/snapshot/ublk-loop.image=$dir/images/image
	umount /mnt
done
for name in $(ctr containers list -q); do
	ctr containers delete $name
done
ctr images rm --sync example.org/image:1
while ublk-loop list | grep -q live; do sleep 0.1; done
systemctl stop containerd.service ublk-loop-snapshotter.service
umount /var/lib/ublk-loop
echo "snapshotter"

# The sweeper unmounts in the namespace of the host.
name=$(printf '%016x-%s' 1 $(printf 'A%.0s' $(seq 26)))
dir=/run/ublk-loop-oci/hooks/$name
mkdir -p $dir/rootfs /etc/ublk-loop
mount -t tmpfs none $dir/rootfs
echo 'sweep_after = "1ms"' >/etc/ublk-loop/oci.toml
systemctl start ublk-loop-sweep.service || { journalctl -u ublk-loop-sweep.service; exit 1; }
! mountpoint -q $dir/rootfs || exit 1
test ! -e $dir
echo "swept"

# Neither systemd-oomd nor a limit of tasks ends a server.
device=$(ublk-loop add --standalone /run/disk)
for unit in ublk-loop.service $(systemctl list-units --plain --no-legend 'ublk-loop-ublkb*' | cut -d ' ' -f 1); do
	echo "limits of ${unit%%-ublkb*}: $(systemctl show -P TasksMax $unit) tasks, $(systemctl show -P ManagedOOMPreference $unit)"
done
ublk-loop del $device

# A change of the target leaves the server to the mounts, which stay.
cat >/run/systemd/system/other.target <<'END'
[Unit]
DefaultDependencies=no
Requires=basic.target
Wants=script.service
AllowIsolate=yes
END
systemctl daemon-reload
systemctl start ublk-loop.service
device=$(ublk-loop add /run/disk)
mke2fs -q $device
mount $device /mnt
systemctl isolate other.target
while systemctl list-jobs --no-legend | grep -v ' script.service '; do sleep 0.1; done
mountpoint -q /mnt
ublk-loop list | grep "^$device .* live"
timeout 60 dd if=/dev/urandom of=/mnt/file bs=1M count=8 oflag=direct status=none
umount /mnt
ublk-loop del $device
echo "isolated"

for unit in ublk-loop ublk-loop-snapshotter ublk-loop-sweep; do
	echo "$unit $(systemctl is-failed $unit.service)"
	systemd-analyze security --no-pager $unit.service | grep Overall
done
`

// exposure finds the figure of systemd-analyze for a unit.
var exposure = regexp.MustCompile(`exposure level for (\S+)\.service: ([0-9.]+)`)

// metricsSettings returns the settings of the manual for the unit of a server with metrics.
func metricsSettings(t testing.TB) string {
	t.Helper()
	text, err := os.ReadFile(top(t) + "/docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	_, settings, found := strings.Cut(string(text), "```\n[Service]\n")
	settings, _, ended := strings.Cut(settings, "```\n")
	if !found || !ended {
		t.Fatal("docs/metrics.md has no settings for the unit")
	}
	return "[Service]\n" + settings
}

// The units work with all their restrictions, and systemd-analyze calls none of them exposed.
func TestLongDebianUnits(t *testing.T) {
	m := newMachine(t, "trixie")
	m.copy(one(t, packages(t)+"/ublk-loop_*.deb"), "/test/ublk-loop.deb")
	m.copy(one(t, packages(t)+"/ublk-loop-snapshotter_*.deb"), "/test/ublk-loop-snapshotter.deb")
	containerd := m.run("../../scripts/vm-containerd.sh", "trixie")
	for _, program := range []string{"containerd", "ctr"} {
		m.copy(containerd+"/"+program, "/usr/bin/"+program)
	}
	r := m.boot(strings.Replace(unitsWork, "METRICS", metricsSettings(t), 1))
	for _, want := range []string{
		"served\n", "disks\n", "metrics\n", "snapshotter\n", "swept\n", "isolated\n",
		"limits of ublk-loop.service: infinity tasks, omit\n", "limits of ublk-loop: infinity tasks, omit\n",
	} {
		if !strings.Contains(r.out, want) {
			t.Errorf("no %q in\n%s", want, r.out)
		}
	}
	found := exposure.FindAllStringSubmatch(r.out, -1)
	if len(found) != 3 {
		t.Errorf("figures of %d units, want 3, in\n%s", len(found), r.out)
	}
	for _, f := range found {
		t.Log(f[0])
		limit := "4"
		switch f[1] {
		case "ublk-loop":
			limit = "4.0" // it may make namespaces and change users, for the process that serves requests
		case "ublk-loop-snapshotter":
			limit = "2.0"
		}
		if f[2] >= limit {
			t.Errorf("%s has an exposure of %s, want less than %s", f[1], f[2], limit)
		}
	}
}
