# shellcheck shell=bash disable=SC2154 # vm.sh sources this file and sets its variables
# Starts a user-mode kernel for vm.sh: sets $machine to the command. Its descriptors 3, 4 and 5 receive the guest's standard
# output, standard error and exit status.
#
# The guest cannot access files of the host: its root is the memory disk, its kernel has no hostfs, and its disks are
# read-only or are files in this run's own directory.

uml_machine() {
	local number=0 disk
	[[ -z $icount ]] || die "kernel $kernel_name: --icount: only QEMU counts instructions"
	machine=(
		"$kernel/linux" "mem=${memory}M" "initrd=$work/initramfs" rdinit=/init seccomp=auto uml_dir="$work/"
		stderr=1 console=tty0 con=null 'con0=null,fd:2' loglevel=5 panic=-1 noreboot
		ssl=null 'ssl0=null,fd:3' 'ssl1=null,fd:4' 'ssl2=null,fd:5'
	)
	for disk in "${disks[@]}"; do
		machine+=("ubd$number=$disk")
		number=$((number + 1))
	done
	for disk in "${images[@]}"; do
		machine+=("ubd${number}rc=$disk")
		number=$((number + 1))
	done
	# shellcheck disable=SC2206 # one word for each option
	machine+=($append)
}
