#!/usr/bin/env bash
# Compare ublk-loop with the kernel's loop driver, on this machine's own ublk or in a virtual machine.
set -euo pipefail

here=$(dirname "$(realpath "$0")")
top=$(dirname "$here")

usage() {
	cat <<'USAGE'
usage: bench.sh [--check | --keep]

Prints a table, leaves the report in bin/bench.json, and draws docs/bench-*.svg.

  --check  only compare with scripts/bench/ratios.json, and fail if ublk-loop is slower
  --keep   measure what --check compares in three boots, and write the means to scripts/bench/ratios.json

Environment:
  FULL=1      measure the whole matrix (hours); the default takes five minutes
  ONLY=PART   measure only copy-on-write (cow), hash trees (verity), attach, mount and detach (attach), or starts of
              containers (create)
  PEERS=1     also measure the kernel's own test server, built from Debian's linux-source
  KERNEL      kernel of the virtual machine (7.3)
  CLOCK       machine or instructions; by default machine if this machine has KVM, or ublk and root, otherwise instructions
  BENCH_DIR   directory on a disk for a file of 1 GiB, when measuring on this machine
  RUNTIME     duration of a job (500ms)
USAGE
}

die() {
	echo "bench.sh: error: $*" >&2
	exit 1
}

host_has_ublk() { [[ $EUID -eq 0 ]] && { [[ -e /dev/ublk-control ]] || modprobe -q ublk_drv 2>/dev/null; }; }

# Choose where to measure, and by which clock.
choose() {
	machine=vm
	case ${CLOCK:-} in
	instructions) clock=instructions ;;
	machine | '')
		clock=machine
		if [[ -z $check ]] && host_has_ublk; then
			machine=host
		elif [[ $("$here/vm-accel.sh" "$("$here/vm-kernel.sh" "$kernel")") != *kvm* || -n $check ]]; then
			[[ -z ${CLOCK:-} ]] || die "clock machine: needs KVM, or ublk and root on this machine"
			clock=instructions
		fi
		;;
	*) die "CLOCK=$CLOCK: neither machine nor instructions" ;;
	esac
}

build() {
	make -s -C "$top" build
	(cd "$here/bench" && CGO_ENABLED=0 go build -buildvcs=false -o "$top/bin/bench" .)
}

# Measure on this machine.
measure_here() { "$top/bin/bench" run --clock machine --bin "$top/bin/ublk-loop" ${BENCH_DIR:+--ext4 "$BENCH_DIR"} "$@"; }

# Measure in a virtual machine that exists for this only.
measure_there() {
	local machine_options=(--disk 2G --memory 4096 --timeout "${TIMEOUT:-$((${FULL:-0} ? 36000 : 1800))}")
	machine_options+=(--file "$top/bin/bench" --file "$top/bin/ublk-loop:/usr/bin/ublk-loop")
	[[ $clock != instructions ]] || machine_options+=(--icount)
	[[ -z $peer ]] || machine_options+=(--file "$peer")
	"$here/vm.sh" run "$kernel" "${machine_options[@]}" -- /vm/files/bench run --clock "$clock" --ext4 /dev/vda "$@"
}

main() {
	local check='' keep='' boot options=() report=$top/bin/bench.json
	kernel=${KERNEL:-7.3} peer=''
	case ${1:-} in
	--check) check=yes ;;
	--keep) check=yes keep=yes ;;
	-h | --help) usage && exit ;;
	'') ;;
	*) die "option $1: unknown" ;;
	esac
	"$here/setup.sh"
	choose
	build
	options+=(--runtime "${RUNTIME:-500ms}")
	[[ -z ${FULL:-} ]] || options+=(--full)
	[[ -z ${ONLY:-} ]] || options+=(--only "$ONLY")
	[[ -z $check ]] || options+=(--check)
	[[ $clock != instructions ]] || options+=(--attaches 30)
	if [[ -n ${PEERS:-} && -z $check ]]; then
		peer=$("$here/bench-peer.sh")
		options+=(--kublk "$([[ $machine == host ]] && echo "$peer" || echo "/vm/files/${peer##*/}")")
	fi
	if [[ $machine == host ]]; then
		measure_here "${options[@]}" >"$report"
	else
		measure_there "${options[@]}" >"$report"
	fi
	if [[ -n $keep ]]; then
		for boot in 2 3; do measure_there "${options[@]}" >"$report.$boot"; done
		"$top/bin/bench" keep "$report" "$report".[23] "$here/bench/ratios.json"
	elif [[ -n $check ]]; then
		if ! "$top/bin/bench" check "$report" "$here/bench/ratios.json"; then
			# Boots differ by up to 2 %. A real slowdown also appears in the next boot.
			echo "bench.sh: slower in one boot: measuring in another" >&2
			measure_there "${options[@]}" >"$report"
			"$top/bin/bench" check "$report" "$here/bench/ratios.json"
		fi
	else
		"$top/bin/bench" table "$report"
		"$top/bin/bench" plot "$report" "$top/docs"
	fi
}

main "$@"
