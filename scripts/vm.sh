#!/usr/bin/env bash
# Run a command as root on a real kernel, in a virtual machine that exists for this command only.
set -euo pipefail

here=$(dirname "$(realpath "$0")")
cache=${UBLK_LOOP_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/ublk-loop}
PATH=$PATH:/usr/sbin:/sbin

usage() {
	cat <<'USAGE'
usage: vm.sh run KERNEL [options] -- COMMAND [ARG...]

KERNEL is a name in kernels.txt (fetched once), or a directory with vmlinuz and lib/modules/VERSION.
COMMAND runs as root in a fresh guest; its output comes here, and its exit status is this command's. 125 means that the
machine died, hung, or never came up. Everything in the guest is in memory and gone at the end.

  --file HOST[:GUEST]  copy a file into the guest, to /vm/files/NAME if GUEST is not given
  --dir HOST:GUEST     copy a directory's contents into the guest
  --disk SIZE          add an empty scratch disk, as /dev/vda, /dev/vdb, ... (sizes as for truncate: 1G)
  --image FILE         add a disk with what is in the file, read-only, behind the scratch disks
  -m, --memory MIB     memory (2048; 512 is the least that it starts with)
  -c, --cpus N         virtual CPUs (2)
  --icount             count instructions in place of time, on one CPU: figures that repeat
  --append 'K=V ...'   more for the kernel's command line
  --modules 'M ...'    modules to load first (ublk_drv; '' for none)
  --timeout SECONDS    give up after this long (600)
  --console FILE       keep the kernel's console there

Environment: UBLK_LOOP_CACHE is where kernels and the like are kept (~/.cache/ublk-loop).
UBLK_LOOP_ACCEL=kvm or tcg overrides what was found out about this machine.
USAGE
}

die() {
	echo "vm.sh: error: $*" >&2
	exit 125
}

parse() {
	memory=2048 cpus=2 icount='' append='' modules=ublk_drv timeout=600 console=''
	files=() dirs=() disks=() images=() command=()
	kernel_name=${1:?KERNEL}
	shift
	while (($#)); do
		case $1 in
		--) shift && command=("$@") && break ;;
		--icount) icount=icount && shift && continue ;;
		-h | --help) usage && exit ;;
		esac
		(($# > 1)) || die "option $1: unknown, or its value is missing"
		case $1 in
		-m | --memory) memory=${2%M} ;;
		-c | --cpus) cpus=$2 ;;
		--append) append+=" $2" ;;
		--modules) modules=$2 ;;
		--timeout) timeout=$2 ;;
		--console) console=$2 ;;
		--file) files+=("$2") ;;
		--dir) dirs+=("$2") ;;
		--disk) disks+=("$2") ;;
		--image) images+=("$2") ;;
		*) die "option $1: unknown" ;;
		esac
		shift 2
	done
	((${#command[@]})) || die "no command: expected -- COMMAND"
}

# Quote words for the guest's shell.
quote() {
	local word
	for word in "$@"; do printf "'%s' " "${word//\'/\'\\\'\'}"; done
}

add_file() {
	local host=${1%%:*} guest=/vm/files/${1##*/}
	[[ $1 != *:* ]] || guest=${1#*:}
	[[ -f $host ]] || die "file $host: not there"
	mkdir -p "$stage$(dirname "$guest")"
	cp "$host" "$stage$guest"
}

add_dir() {
	local host=${1%%:*} guest=${1#*:}
	[[ -d $host && $1 == *:* ]] || die "directory $1: not HOST:GUEST, or not there"
	mkdir -p "$stage$guest"
	cp -r "$host/." "$stage$guest/"
}

# The guest's memory disk: the cached tools and modules, and behind them this run's own files.
make_initramfs() {
	local base item stage=$work/stage
	base=$("$here/vm-initramfs.sh" "$kernel")
	mkdir -p "$stage/vm"
	cp "$here/vm-init.sh" "$stage/init"
	chmod +x "$stage/init"
	for item in "${files[@]}"; do add_file "$item"; done
	for item in "${dirs[@]}"; do add_dir "$item"; done
	echo "exec $(quote "${command[@]}")" >"$stage/vm/command"
	{
		echo "MODULES=$(quote "$modules${disks[*]:+ virtio_blk}${images[*]:+ virtio_blk}")"
		echo "WATCHDOG=$((timeout > 30 ? timeout - 15 : 0))"
		echo "ONE_OUTPUT=$one_output"
	} >"$stage/vm/settings"
	cp "$base" "$work/initramfs"
	(cd "$stage" && find . -mindepth 1 -print0 | cpio --quiet -0 -o -H newc -R 0:0) >>"$work/initramfs"
	rm -rf "$stage"
}

qemu_arguments() {
	local number=0 size image
	arguments=(
		-nodefaults -no-user-config -display none -no-reboot -m "$memory"
		-kernel "$kernel/vmlinuz" -initrd "$work/initramfs"
		-append "console=ttyS0 loglevel=5 no_timer_check cryptomgr.notests=1 panic=-1 reboot=t rdinit=/init $append"
		-serial "file:$work/console"
		-device virtio-serial-pci
	)
	add_port stdout "$work/stdout"
	add_port stderr "$work/stderr"
	add_port status "$work/status"
	for size in "${disks[@]}"; do
		truncate -s "$size" "$work/disk$number"
		arguments+=(-drive "file=$work/disk$number,format=raw,if=none,id=disk$number,cache=unsafe,discard=unmap,detect-zeroes=off"
			-device "virtio-blk-pci,drive=disk$number")
		number=$((number + 1))
	done
	for image in "${images[@]}"; do
		arguments+=(-drive "file=$image,format=raw,if=none,id=disk$number,readonly=on"
			-device "virtio-blk-pci,drive=disk$number")
		number=$((number + 1))
	done
	if [[ -n $icount ]]; then
		arguments+=(-smp 1 -icount "shift=0,sleep=off")
		export UBLK_LOOP_ACCEL=tcg
	else
		arguments+=(-smp "$cpus")
	fi
	local accelerator
	mapfile -t accelerator < <("$here/vm-accel.sh" "$kernel")
	arguments+=("${accelerator[@]}")
}

add_port() {
	arguments+=(-chardev "file,id=$1,path=$2" -device "virtserialport,chardev=$1,name=$1")
}

# Start QEMU, and wait for its end. It dies with this script, however this script ends.
boot() {
	mkfifo "$work/stdout" "$work/stderr"
	cat "$work/stdout" &
	local out=$!
	cat "$work/stderr" >&2 &
	local err=$! hold_out hold_err
	# Held open until QEMU has ended, so that the readers end then, whether or not it ever opened them.
	exec {hold_out}>"$work/stdout" {hold_err}>"$work/stderr"
	setpriv --pdeathsig TERM timeout -k 5 "$timeout" \
		setpriv --pdeathsig KILL qemu-system-x86_64 "${arguments[@]}" </dev/null >"$work/qemu" 2>&1 &
	pid=$!
	qemu_status=0
	wait "$pid" || qemu_status=$?
	pid=''
	exec {hold_out}>&- {hold_err}>&-
	wait "$out" "$err"
}

# Say why there is no exit status, with the end of the console.
explain() {
	local what='ended without an exit status'
	[[ $qemu_status != 124 && $qemu_status != 137 ]] || what="did not end within $timeout seconds"
	! grep -q 'Kernel panic' "$work/console" 2>/dev/null || what=panicked
	[[ -s $work/console || ! -s $work/qemu ]] || what="did not start: $(tail -n 1 "$work/qemu")"
	tail -n 80 "$work/console" >&2 2>/dev/null || true
	echo "vm.sh: error: kernel $kernel_name $what" >&2
}

keep_console() {
	if [[ -z $console ]]; then
		[[ $status -ne 0 && -s $work/console ]] || return 0
		mkdir -p "$cache/console"
		find "$cache/console" -name '*.log' -mtime +7 -delete
		console=$cache/console/$(basename "$kernel_name")-$$.log
	fi
	cp "$work/console" "$console"
	[[ $status -eq 0 ]] || echo "vm.sh: kernel console: $console" >&2
}

# shellcheck disable=SC2317 # called by trap
cleanup() {
	[[ -z ${pid:-} ]] || kill "$pid" 2>/dev/null || true
	rm -rf "$work"
}

main() {
	case ${1:-} in
	run) shift ;;
	-h | --help) usage && exit ;;
	*) usage >&2 && exit 125 ;;
	esac
	parse "$@"
	"$here/setup.sh" || exit 125
	kernel=$("$here/vm-kernel.sh" "$kernel_name") || exit 125
	work=$(mktemp -d "${TMPDIR:-/tmp}/ublk-loop-vm.XXXXXX")
	trap cleanup EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM HUP
	one_output=''
	[[ $(readlink "/proc/$$/fd/1") != "$(readlink "/proc/$$/fd/2")" ]] || one_output=yes
	make_initramfs
	qemu_arguments
	boot
	status=$(sed -n 's/^exit //p' "$work/status" 2>/dev/null) || true
	if [[ -z $status ]]; then
		explain
		status=125
	fi
	keep_console
	exit "$status"
}

main "$@"
