# shellcheck shell=bash disable=SC2154 # vm.sh sources this file and sets its variables
# Starts a user-mode kernel for vm.sh: sets $machine to the command. Its descriptors 3, 4 and 5 receive the guest's standard
# output, standard error and exit status.
#
# The guest cannot access files of the host: its root is the memory disk, its kernel has no hostfs, and its disks are
# read-only or are files in this run's own directory.

# The directories of CPUs. A machine locks (flock) the one of its CPU, which the users of all caches see.
cpu_directory=/sys/devices/system/cpu

uml_machine() {
	local number=0 disk cpu
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
	if own_cpu; then machine=(taskset --cpu-list "$cpu" "${machine[@]}"); fi
}

# Find a CPU that no other machine has, keep it until vm.sh and its machine end, and set $cpu to its number. The
# kernel and the processes of its guest take turns: none runs while another one does. If they may use two CPUs, each turn
# wakes up the other CPU, which makes system calls and page faults in the guest a quarter slower.
own_cpu() {
	local list lock
	list=$(taskset --cpu-list --pid $$)
	for cpu in $(cpu_numbers "${list##*: }"); do
		exec {lock}<"$cpu_directory/cpu$cpu" || return 1
		if flock --nonblock "$lock"; then return 0; fi
		exec {lock}<&-
	done
	return 1
}

# Print the numbers in a list of CPUs, such as 0,2-3.
cpu_numbers() {
	local range
	for range in ${1//,/ }; do
		seq "${range%-*}" "${range#*-}"
	done
}
