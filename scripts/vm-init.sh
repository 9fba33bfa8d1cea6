#!/usr/bin/busybox sh
# shellcheck shell=dash
# The first process of the test VM (vm.sh installs it as /init). It mounts the usual file systems and runs /vm/command
# with its output on virtio ports, or on serial lines of a user-mode kernel. It writes the exit status to another port or
# line and ends the machine.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb LANG=C

# pivot_root(2) does not work in the initramfs itself, but container runtimes need it. So mount the initramfs a second
# time over the first; this mount is the root of all later processes.
if [ "${1:-}" != moved ]; then
	mkdir /newroot
	mount --bind / /newroot
	cd /newroot || exit 1
	mount --move . /
	exec chroot . /init moved
fi

mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t tmpfs run /run
mount -t tmpfs tmp /tmp
mount -t debugfs debug /sys/kernel/debug
mount -t tracefs trace /sys/kernel/tracing
mount -t cgroup2 cgroup /sys/fs/cgroup
ln -s /proc/self/fd /dev/fd
ln -s fd/0 /dev/stdin
ln -s fd/1 /dev/stdout
ln -s fd/2 /dev/stderr
mkdir -p /run/lock /run/cryptsetup
hostname vm
ip link set lo up
# The host can pause an emulated CPU for a while. Do not report this as a lockup before 120 s.
echo 60 >/proc/sys/kernel/watchdog_thresh
# The log must have each system call that a sandbox refused: tests read it. By default the kernel drops records that come fast.
echo 0 >/proc/sys/kernel/printk_ratelimit

# shellcheck source=/dev/null # written by vm.sh for each run
. /vm/settings


is_uml() { [ "$(uname -m)" = um ] || grep -q "User Mode Linux" /proc/cpuinfo; }

# Print the device of the virtio port with the given name. A user-mode kernel has a serial line instead.
port() {
	for p in /sys/class/virtio-ports/*; do
		if [ "$(cat "$p/name" 2>/dev/null)" = "$1" ]; then echo "/dev/${p##*/}"; fi
	done
	if is_uml; then
		case $1 in
		stdout) echo /dev/ttyS0 ;;
		stderr) echo /dev/ttyS1 ;;
		status) echo /dev/ttyS2 ;;
		esac
	fi
}

# Explain a hang: just before vm.sh gives up, print the running and blocked tasks on the console.
if [ "$WATCHDOG" -gt 0 ]; then
	(
		sleep "$WATCHDOG"
		[ -e /proc/sysrq-trigger ] || exit 0
		echo 8 >/proc/sys/kernel/printk
		echo l >/proc/sysrq-trigger
		echo w >/proc/sysrq-trigger
	) </dev/null >/dev/null 2>&1 &
fi

# Use env, because this shell would run busybox's modprobe, which lacks features.
for module in $MODULES; do /usr/bin/env modprobe "$module" || echo "vm: cannot load $module" >/dev/console; done

# The serial lines of a user-mode kernel are terminals. Make them pass all bytes unchanged.
if is_uml; then
	for line in /dev/ttyS0 /dev/ttyS1 /dev/ttyS2; do stty raw -echo <"$line"; done
	for disk in /dev/ubd?; do [ ! -e "$disk" ] || ln -s "$disk" "/dev/vd${disk#/dev/ubd}"; done
fi

exec 3>"$(port status)"
echo started >&3
exec 4>"$(port stdout)"
if [ -n "$ONE_OUTPUT" ]; then
	exec 5>&4
else
	exec 5>"$(port stderr)"
fi

cd /root || exit 1
/usr/bin/sh /vm/command </dev/null >&4 2>&5 3>&- 4>&- 5>&-
echo "exit $?" >&3

# Do not shut down in order, because that could wait for what the test left behind.
if is_uml; then
	# stty waits until the lines have passed on all output.
	for line in /dev/ttyS0 /dev/ttyS1 /dev/ttyS2; do stty raw -echo <"$line"; done
	exec busybox poweroff -f
fi
echo b >/proc/sysrq-trigger
