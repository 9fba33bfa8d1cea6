#!/usr/bin/env bash
# Run a command as root on a real kernel, in a virtual machine that exists for this command only.
set -euo pipefail

here=$(dirname "$(realpath "$0")")
# shellcheck source=scripts/vm-qemu.sh
. "$here/vm-qemu.sh"
# shellcheck source=scripts/vm-uml.sh
. "$here/vm-uml.sh"
cache=${UBLK_LOOP_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/ublk-loop}
PATH=$PATH:/usr/sbin:/sbin

usage() {
	cat <<'USAGE'
usage: vm.sh run KERNEL [options] -- COMMAND [ARG...]

KERNEL is a name in kernels.txt (fetched or built once), or a directory with vmlinuz and lib/modules/VERSION. A directory with
linux in place of vmlinuz holds a user-mode kernel: it needs no emulation, and has one CPU. A name that ends in -arm64 is a
kernel for arm64, and so are the guest's programs: the files that you add have to be.
COMMAND runs as root in a fresh guest; its output comes here, and its exit status is this command's. 125 means that the
machine died, hung, or never came up. Everything in the guest is in memory and gone at the end.

  --file HOST[:GUEST]  copy a file into the guest, to /vm/files/NAME if GUEST is not given
  --dir HOST:GUEST     copy a directory's contents into the guest
  --disk SIZE          add an empty scratch disk, as /dev/vda, /dev/vdb, ... (sizes as for truncate: 1G)
  --image FILE         add a disk with what is in the file, read-only, behind the scratch disks
  -m, --memory MIB     memory (2048; 512 is the least that it starts with)
  -c, --cpus N         virtual CPUs (2; a user-mode kernel has one)
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
	files=() dirs=() sizes=() disks=() images=() command=()
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
		--disk) sizes+=("$2") ;;
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
		echo "MODULES=$(quote "$(guest_modules)")"
		echo "WATCHDOG=$((timeout > 30 ? timeout - 15 : 0))"
		echo "ONE_OUTPUT=$one_output"
	} >"$stage/vm/settings"
	cp "$base" "$work/initramfs"
	(cd "$stage" && find . -mindepth 1 -print0 | cpio --quiet -0 -o -H newc -R 0:0) >>"$work/initramfs"
	rm -rf "$stage"
}

is_uml() { [[ -x $kernel/linux ]]; }

guest_modules() {
	if is_uml; then
		echo "$modules"
	else
		echo "$modules${sizes[*]:+ virtio_blk}${images[*]:+ virtio_blk}"
	fi
}

make_disks() {
	local size
	for size in "${sizes[@]}"; do
		truncate -s "$size" "$work/disk${#disks[@]}"
		disks+=("$work/disk${#disks[@]}")
	done
}

# Start the machine, and wait for its end. It dies with this script, however this script ends. Its standard error is the
# console of a user-mode kernel; QEMU writes the console itself.
boot() {
	local readers=() hold_out hold_err hold_status messages=$work/machine started=$SECONDS
	! is_uml || messages=$work/console
	mkfifo "$work/stdout" "$work/stderr" "$work/status"
	cat "$work/stdout" &
	readers+=($!)
	cat "$work/stderr" >&2 &
	readers+=($!)
	cat "$work/status" >"$work/said" &
	readers+=($!)
	# Held open until the machine has ended, so that the readers end then, whether or not it ever opened them.
	exec {hold_out}>"$work/stdout" {hold_err}>"$work/stderr" {hold_status}>"$work/status"
	setpriv --pdeathsig TERM timeout -k 5 "$timeout" setpriv --pdeathsig KILL "${machine[@]}" \
		</dev/null >"$messages" 2>&1 3>"$work/stdout" 4>"$work/stderr" 5>"$work/status" &
	pid=$!
	machine_status=0
	wait "$pid" || machine_status=$?
	pid='' machine_seconds=$((SECONDS - started))
	exec {hold_out}>&- {hold_err}>&- {hold_status}>&-
	wait "${readers[@]}"
}

# Say why there is no exit status, with the end of the console.
explain() {
	local what='ended without an exit status'
	! timed_out || what="did not end within $timeout seconds"
	! grep -q 'Kernel panic' "$work/console" 2>/dev/null || what=panicked
	[[ -s $work/console || ! -s $work/machine ]] || what="did not start: $(tail -n 1 "$work/machine")"
	tail -n 80 "$work/console" >&2 2>/dev/null || true
	echo "vm.sh: error: kernel $kernel_name $what" >&2
	! is_uml || ! timed_out || explain_mappings
}

# Succeed if the time limit ended the machine. Its status is also 137 if something else killed it, such as a lack of memory
# on the host.
timed_out() { [[ $machine_status == 124 || $machine_status == 137 ]] && ((machine_seconds >= timeout)); }

# A guest's process hangs when it needs one more mapping than the host allows.
explain_mappings() {
	local limit
	limit=$(</proc/sys/vm/max_map_count)
	((limit >= 1048576)) || echo "vm.sh: a guest's process with $limit pages can hang: vm.max_map_count should be 1048576" >&2
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
	# Only a kernel for arm64 needs QEMU for arm64.
	if [[ ${kernel_name%/} == *-arm64 ]] && ! command -v qemu-system-aarch64 >/dev/null; then
		"$here/setup.sh" qemu-system-arm || exit 125
	else
		"$here/setup.sh" || exit 125
	fi
	kernel=$("$here/vm-kernel.sh" "$kernel_name") || exit 125
	work=$(mktemp -d "${TMPDIR:-/tmp}/ublk-loop-vm.XXXXXX")
	trap cleanup EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM HUP
	one_output=''
	[[ $(readlink "/proc/$$/fd/1") != "$(readlink "/proc/$$/fd/2")" ]] || one_output=yes
	make_initramfs
	make_disks
	if is_uml; then uml_machine; else qemu_machine; fi
	boot
	status=$(sed -n 's/^exit //p' "$work/said" 2>/dev/null) || true
	if [[ -z $status ]]; then
		explain
		status=125
	fi
	keep_console
	exit "$status"
}

main "$@"
