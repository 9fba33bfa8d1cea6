#!/usr/bin/env bash
# Run the tests, on this machine and on each kernel of the matrix, and end with the line "N passed, N failed, N skipped".
set -euo pipefail

here=$(dirname "$(realpath "$0")")
top=$(dirname "$here")
pattern='^Test(Kernel|Crash)' # what needs ublk; everything else runs on any machine

usage() {
	cat <<'USAGE'
usage: test.sh [--unit] [--kernel NAME|DIR|host]... [--run REGEX] [--package DIR]...

Runs the Test... of all packages here, and their TestKernel... and TestCrash... on each kernel: those of kernels.txt in
virtual machines, and this machine's own ("host") where it has ublk and we are root.

Where at most 3 tests failed, and no --run was given, those that did not pass on a kernel run twice more, by themselves, and
all that needs no kernel where that was not well: what passes then both times counts as passed, and is named above the last
line as unsteady.

  --unit          only what needs no ublk
  --kernel NAME   only on this kernel, without the tests that need no ublk; may be repeated
  --run REGEX     only these of TestKernel... and TestCrash... (with --unit: of the others)
  --package DIR   only this package (./loop); may be repeated

Environment: JOBS, the number of virtual machines at once (the number of CPUs, at most 2);
UBLK_LOOP_TEST_TIMEOUT, the seconds that one package may take on one kernel (3000);
UBLK_LOOP_KILLS, how often the tests of recovery kill a server, in each way (30);
UBLK_LOOP_PRESSURE, the seconds for which a test keeps the machine short of memory, in each way (15);
UBLK_LOOP_DEVICES, how many devices a test has one server serve (120);
UBLK_LOOP_CYCLES, how often a test adds and deletes a device in a row (250);
UBLK_LOOP_CONTAINERD, the Debian suites whose containerd is tested (bookworm on 6.12, trixie elsewhere);
UBLK_LOOP_SEED, the seed that a test of random operations has printed, to repeat them;
In a virtual machine the tests find: UBLK_LOOP_HAS (what the machine has, of ublktest's needs), UBLK_LOOP_BIN (the built command), UBLK_LOOP_DISK (an empty disk of
2 GiB), and their package's testdata below the working directory; on the last of the kernels also UBLK_LOOP_ENGINES (a
disk with container engines, of vm-engines.sh).
USAGE
}

die() {
	echo "test.sh: error: $*" >&2
	exit 1
}

parse() {
	unit='' run='' kernels=() packages=()
	while (($#)); do
		case $1 in
		-h | --help) usage && exit ;;
		--unit) unit=yes && shift && continue ;;
		esac
		(($# > 1)) || die "option $1: unknown, or its value is missing"
		case $1 in
		--kernel) kernels+=("$2") ;;
		--run) run=$2 ;;
		--package) packages+=("./${2#./}") ;;
		*) die "option $1: unknown" ;;
		esac
		shift 2
	done
}

# The kernels to test on where none was named.
all_kernels() {
	! host_has_ublk || echo host
	"$here/vm-kernel.sh" --list
}

host_has_ublk() { [[ $EUID -eq 0 ]] && { [[ -e /dev/ublk-control ]] || modprobe -q ublk_drv 2>/dev/null; }; }

# Do something with packages in their module's directory: go -C DIRECTORY COMMAND... PATTERN for each of them.
each_module() {
	local package pattern status=0
	for package in "${packages[@]}"; do
		pattern=.
		[[ $package != *... ]] || pattern=./...
		go -C "${package%/...}" "$@" "$pattern" || status=1
	done
	return $status
}

# The packages with tests that need a kernel, as directories.
kernel_packages() {
	local directory
	each_module list -f '{{.Dir}}' | while read -r directory; do
		! grep -qsE '^func Test(Kernel|Crash)' "$directory"/*_test.go || echo "$directory"
	done
}

# Build everything that the tests run. What does not compile is a failure, and does not keep the rest from running.
build() {
	local directory
	mkdir "$work/tests" "$work/results"
	go build -o "$work/testsum" ./scripts/testsum
	[[ -z $unit ]] || return 0
	make -s build || failure ublk-loop | summarize build
	kernel_packages | while read -r directory; do
		if CGO_ENABLED=0 go -C "$directory" test -c -o "$work/tests/$(basename "$directory")" . && build_beside "$directory"; then
			echo "$directory" >>"$work/packages"
		else
			failure "$(basename "$directory")" | summarize build
		fi
	done
}

# Build what the tests of a package run beside the command.
build_beside() {
	if [[ $(basename "$1") == ublk-loop-snapshotter ]] || uses_engines "$1"; then make -s build-snapshotter; fi
}

# Print the results of the events as they come under label $1, and keep their counts and what need not run again in
# directory $2.
summarize() {
	local results=${2:-$(mktemp -d "$work/results/XXXXXX")}
	"$work/testsum" -label "$1" -counts "$results/counts" -done "$results/done"
}

# The event of a failure that no test reports: of the package $1, or without one, of what may have been reported before.
failure() { printf '{"Action":"fail","Package":"%s"}\n' "${1:-}"; }

# What needs no ublk, with the race detector where there is a C compiler for it, with more arguments for go test; what
# comes of it in directory $1.
test_here() {
	local race=()
	mkdir "$1"
	! command -v gcc >/dev/null || race=(-race)
	{
		export CGO_ENABLED=${#race[@]}
		each_module test -json "${race[@]}" -skip "$pattern" ${run:+-run "$run"} "${@:2}" 2>&1 || failure
	} | summarize here "$1"
}

# The cipher's code for the other architecture, in emulation where this machine has that.
test_arm64() {
	[[ ${packages[0]} == ./... && $(go env GOARCH) != arm64 ]] && command -v qemu-aarch64 >/dev/null || return 0
	{
		GOARCH=arm64 CGO_ENABLED=0 go test -json -exec qemu-aarch64 ${run:+-run "$run"} ./transfer/xts 2>&1 || failure
	} | summarize arm64
}

# The tests of the package in directory $3 on kernel $2, with more arguments for them; what comes of them in directory $1.
test_kernel() {
	local results=$1 name
	name=$(basename "$3")
	mkdir "$results"
	{
		start_tests "${@:2}" 2>&1 | go tool test2json -t -p "$name" || failure "$name"
	} | summarize "$(basename "$2")" "$results"
}

# Whether tests in directory $1 run container engines.
uses_engines() { grep -qs UBLK_LOOP_ENGINES "$1"/*_test.go; }

# Run the test binary of directory $2 on kernel $1. With test2json's own verbosity each line of output has its test.
start_tests() {
	local kernel=$1 name binary arguments
	name=$(basename "$2")
	binary=$work/tests/$name
	arguments=(-test.v=test2json -test.run "${run:-$pattern}" -test.timeout "$((timeout - 60))s" "${@:3}")
	if [[ $kernel == host ]]; then
		cd "$2" && UBLK_LOOP_BIN=$top/bin/ublk-loop "$binary" "${arguments[@]}"
		return
	fi
	local files=(--file "$binary:/vm/tests/$name.test" --file "$top/bin/ublk-loop:/usr/bin/ublk-loop")
	[[ ! -d $2/testdata ]] || files+=(--dir "$2/testdata:/vm/tests/testdata")
	local has=own,cpus,machine,disk,systemd,plain
	local settings=(UBLK_LOOP_BIN=/usr/bin/ublk-loop UBLK_LOOP_DISK=/dev/vda
		"UBLK_LOOP_KILLS=${UBLK_LOOP_KILLS:-}" "UBLK_LOOP_PRESSURE=${UBLK_LOOP_PRESSURE:-}" "UBLK_LOOP_DEVICES=${UBLK_LOOP_DEVICES:-}"
		"UBLK_LOOP_SEED=${UBLK_LOOP_SEED:-}" "UBLK_LOOP_CYCLES=${UBLK_LOOP_CYCLES:-}" UBLK_LOOP_SNAPSHOTTER=/usr/bin/ublk-loop-snapshotter UBLK_LOOP_CONTAINERD=/vm/containerd)
	# What an engine does with a container does not depend on the kernel: once is enough.
	if [[ $kernel == "${kernels[-1]}" ]] && uses_engines "$2"; then
		files+=(--image "$engines" --file "$top/bin/ublk-loop-snapshotter:/usr/bin/ublk-loop-snapshotter")
		settings+=(UBLK_LOOP_ENGINES=/dev/vdb)
		has+=,engines,snapshotter
	fi
	if [[ $name == ublk-loop-snapshotter ]]; then
		snapshotter_files "$kernel"
		has+=,snapshotter,containerd
	fi
	settings+=("UBLK_LOOP_HAS=$has")
	"$here/vm.sh" run "$kernel" --timeout "$timeout" --disk 2G "${files[@]}" -- env --chdir=/vm/tests "${settings[@]}" "./$name.test" "${arguments[@]}"
}

# Add to $files what the tests of the snapshotter need on kernel $1. With 80 MiB it is nothing for other virtual machines.
snapshotter_files() {
	local suite
	files+=(--file "$top/bin/ublk-loop-snapshotter:/usr/bin/ublk-loop-snapshotter")
	for suite in $(containerd_suites "$1"); do
		files+=(--dir "$("$here/vm-containerd.sh" "$suite"):/vm/containerd/$suite")
	done
}

# The Debian suites whose containerd is tested on kernel $1: the oldest is on the oldest kernel, a newer one elsewhere.
containerd_suites() {
	case ${UBLK_LOOP_CONTAINERD:-},${1##*/} in
	,6.12) echo bookworm ;;
	,*) echo trixie ;;
	*) echo "$UBLK_LOOP_CONTAINERD" ;;
	esac
}

# Every package on every kernel, as many at once as there is room for. The first package takes longest: on no kernel does
# it come last, with nothing left to run beside it.
test_kernels() {
	local kernel directory running=0
	while read -r directory <&3; do
		for kernel in "${kernels[@]}"; do
			if ((running >= jobs)); then
				wait -n || true
				running=$((running - 1))
			fi
			# A process group of its own: cleanup ends it with all that it started.
			set -m
			test_kernel "$work/results/$(basename "$kernel")-$(basename "$directory")" "$kernel" "$directory" &
			set +m
			running=$((running + 1))
		done
	done 3< <(cat "$work/packages" 2>/dev/null)
	wait
}

# Fetch and build what the virtual machines need before the first of them starts its clock.
prepare() {
	local kernel directory
	"$here/setup.sh"
	for kernel in "${kernels[@]}"; do
		[[ $kernel != host ]] || continue
		directory=$("$here/vm-kernel.sh" "$kernel")
		"$here/vm-initramfs.sh" "$directory" >/dev/null
		kernel_packages | grep -q '/ublk-loop-snapshotter$' || continue
		containerd_suites "$kernel" | xargs -n 1 "$here/vm-containerd.sh" >/dev/null
	done
	for directory in $(kernel_packages); do
		! uses_engines "$directory" || engines=$("$here/vm-engines.sh")
	done
}

# Give what failed a second look. A virtual machine stands still for seconds where its host is busy: a test that counted on
# less is to be mended, and is named, but says nothing against the code. Many failures are no chance.
look_again() {
	local kernel directory directories=() results failed total=0
	for results in "$work"/results/*/counts; do
		read -r _ failed _ <"$results"
		total=$((total + failed))
	done
	((total <= 3)) || return 0
	! has_failed here || here_again
	[[ ! -e $work/packages ]] || mapfile -t directories <"$work/packages"
	for kernel in "${kernels[@]}"; do
		for directory in "${directories[@]}"; do
			results=$(basename "$kernel")-$(basename "$directory")
			! has_failed "$results" || kernel_again "$results" "$kernel" "$directory"
		done
	done
}

has_failed() {
	local failed
	[[ -e $work/results/$1/counts ]] && read -r _ failed _ <"$work/results/$1/counts" && ((failed > 0))
}

# Run all that needs no ublk twice more.
here_again() {
	echo "test.sh: what needs no ublk, twice more:"
	test_here "$work/again-here" -count 2
	count_instead here 0 0
}

# Run what has not passed for the results named $1, of the package in directory $3 on kernel $2, twice more.
kernel_again() {
	local passed skipped
	echo "test.sh: what did not pass of $(basename "$3") on $(basename "$2"), twice more:"
	test_kernel "$work/again-$1" "$2" "$3" -test.count 2 -test.skip "^($(paste -sd '|' "$work/results/$1/done"))\$"
	read -r passed _ skipped < <(tail -n 1 "$work/results/$1/counts")
	count_instead "$1" "$passed" "$skipped"
}

# Where nothing failed in the second look at the results named $1, let that count in place of the first, beside the $2
# tests that had passed and the $3 that had been skipped.
count_instead() {
	local first=$work/results/$1 again=$work/again-$1 passed failed skipped
	read -r passed failed skipped <"$again/counts"
	((failed == 0 && passed > 0)) || return 0
	LC_ALL=C comm -13 "$first/done" "$again/done" | sed "s/^/unsteady: $1: /" >>"$work/unsteady"
	echo "$(($2 + passed / 2)) 0 $(($3 + skipped / 2))" >"$first/counts"
}

# The last line, and whether all is well: something ran, and nothing failed.
report() {
	local passed failed skipped
	cat "$work/unsteady" 2>/dev/null || true
	read -r passed failed skipped < <(head -q -n 1 "$work"/results/*/counts | awk '{p += $1; f += $2; s += $3} END {print p+0, f+0, s+0}')
	echo "$passed passed, $failed failed, $skipped skipped"
	((passed > 0 && failed == 0))
}

cleanup() {
	local group
	for group in $(jobs -p); do kill -- "-$group" 2>/dev/null || true; done
	rm -rf "$work"
}

main() {
	parse "$@"
	cd "$top"
	timeout=${UBLK_LOOP_TEST_TIMEOUT:-3000}
	jobs=${JOBS:-$(($(nproc) < 2 ? 1 : 2))}
	work=$(mktemp -d "${TMPDIR:-/tmp}/ublk-loop-test.XXXXXX")
	trap cleanup EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM HUP
	# The main module first, then those beside it.
	((${#packages[@]})) || packages=(./... scripts/bench/... cmd/ublk-loop-snapshotter/...)
	local here_too=''
	((${#kernels[@]})) || here_too=yes
	[[ -n $unit || -z $here_too ]] || mapfile -t kernels < <(all_kernels)
	[[ -n $unit ]] || prepare
	build
	if [[ -n $here_too ]]; then
		test_here "$work/results/here"
		test_arm64
	fi
	if [[ -z $unit ]]; then
		test_kernels
		[[ -n $run ]] || look_again
	fi
	report
}

main "$@"
