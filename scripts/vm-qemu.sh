# shellcheck shell=bash disable=SC2154 # vm.sh sources this file and sets its variables
# Starts a kernel in QEMU for vm.sh: sets $machine to the command. Its descriptors 3, 4 and 5 receive the guest's standard
# output, standard error and exit status.

qemu_machine() {
	local accelerator program=(qemu-system-x86_64) line='console=ttyS0 no_timer_check reboot=t'
	if [[ $kernel == *-arm64 ]]; then
		program=(qemu-system-aarch64 -machine 'virt,gic-version=3') line=console=ttyAMA0
	fi
	machine=(
		"${program[@]}" -nodefaults -no-user-config -display none -no-reboot -m "$memory"
		-kernel "$kernel/vmlinuz" -initrd "$work/initramfs"
		-append "$line loglevel=5 cryptomgr.notests=1 panic=-1 rdinit=/init $append"
		-serial "file:$work/console"
		-device virtio-serial-pci
	)
	qemu_port stdout 3
	qemu_port stderr 4
	qemu_port status 5
	qemu_disks
	if [[ -n $icount ]]; then
		machine+=(-smp 1 -icount "shift=0,sleep=off")
		export UBLK_LOOP_ACCEL=tcg
	else
		machine+=(-smp "$cpus")
	fi
	mapfile -t accelerator < <("$here/vm-accel.sh" "$kernel" "$icount")
	machine+=("${accelerator[@]}")
}

# Print the options that connect the guest's port $1 to the descriptor $2.
qemu_port() {
	machine+=(-chardev "file,id=$1,path=/dev/fd/$2" -device "virtserialport,chardev=$1,name=$1")
}

qemu_disks() {
	local number=0 disk
	for disk in "${disks[@]}"; do
		machine+=(-drive "file=$disk,format=raw,if=none,id=disk$number,cache=unsafe,discard=unmap,detect-zeroes=off"
			-device "virtio-blk-pci,drive=disk$number")
		number=$((number + 1))
	done
	for disk in "${images[@]}"; do
		machine+=(-drive "file=$disk,format=raw,if=none,id=disk$number,readonly=on"
			-device "virtio-blk-pci,drive=disk$number")
		number=$((number + 1))
	done
}
