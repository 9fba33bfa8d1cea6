#!/usr/bin/env bash
# vm-accel.sh KERNELDIR [icount]   print QEMU's options for the accelerator and the CPU, one word per line
#
# The script tests KVM, because some machines have a /dev/kvm that cannot start an ordinary kernel. It keeps the result
# until the next boot of the machine. UBLK_LOOP_ACCEL=kvm or tcg overrides it.
set -euo pipefail

cache=${UBLK_LOOP_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/ublk-loop}

# Start a kernel under KVM with a first process that only prints a line.
kvm_works() {
	[[ -w /dev/kvm ]] || return 1
	local work status=0
	work=$(mktemp -d "$cache/kvm.XXXXXX")
	mkdir -p "$work/root/proc"
	cp "$(realpath "$(command -v busybox)")" "$work/root/sh"
	printf '%s\n' '#!/sh sh' 'echo kvm works' '/sh mount -t proc proc /proc' 'echo b >/proc/sysrq-trigger' >"$work/root/init"
	chmod +x "$work/root/init"
	(cd "$work/root" && find . | cpio --quiet -o -H newc -R 0:0) >"$work/initramfs"
	timeout -k 1 15 qemu-system-x86_64 -nodefaults -no-user-config -display none -no-reboot -m 512 -accel kvm -cpu host \
		-kernel "$kernel/vmlinuz" -initrd "$work/initramfs" -serial "file:$work/console" \
		-append 'console=ttyS0 quiet panic=-1 reboot=t' </dev/null >/dev/null 2>&1 || true
	grep -q '^kvm works' "$work/console" 2>/dev/null || status=1
	rm -rf "$work"
	return $status
}

accelerator() {
	local boot lock answer=$cache/accelerator
	boot=$(cat /proc/sys/kernel/random/boot_id)
	mkdir -p "$cache"
	exec {lock}>"$answer.lock"
	flock "$lock"
	if ! grep -q "^$boot" "$answer" 2>/dev/null; then
		if kvm_works; then echo "$boot kvm"; else echo "$boot tcg"; fi >"$answer"
	fi
	sed "s/^$boot //" "$answer"
}

kernel=${1:?KERNELDIR} counted=${2:-} cpu=max,-cx16
if [[ $kernel == *-arm64 ]]; then
	# Real pointer authentication would take most of the time of the emulation.
	printf '%s\n' -accel "tcg,thread=single" -cpu max,pauth-impdef=on
elif [[ ${UBLK_LOOP_ACCEL:-$(accelerator)} == kvm ]]; then
	printf '%s\n' -accel kvm -cpu host
else
	# Run all CPUs on one thread. With a thread for each, a CPU occasionally runs code that another CPU is patching, and
	# the kernel dies of an int3 (QEMU 7.2: whenever a tracepoint is enabled under load; 10.0: rarely). With cx16, one
	# boot in three of a 6.12 kernel panicked at a cmpxchg16b. With erms, the kernel and Go copy memory by "rep movsb",
	# which is emulated byte by byte: tests of limits and tables on 6.12 took 80 and 90 s of CPU time, and 69 and 72 s without.
	# Figures of counted instructions keep it, because they are compared with earlier ones.
	[[ -n $counted ]] || cpu+=,-erms
	printf '%s\n' -accel "tcg,thread=single" -cpu "$cpu"
fi
