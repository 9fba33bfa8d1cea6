#!/usr/bin/env bash
# fuzz.sh TIME             run each fuzz test of the tree for TIME (such as 30s); go test takes one at a time
# fuzz.sh TIME DIR NAME    run one
#
# Go spends up to a minute to make each input smaller that reaches new code, and tries nothing else meanwhile: of parsers of
# large inputs it then runs three in that minute. Ten attempts for an input leave the time to the search.
set -euo pipefail

minimize=10x
least=1000 # executions, of which the slowest fuzz test has some thousands in 20 s

# Run the fuzz test $2 of the package in directory $1. One that did next to nothing has failed.
fuzz() {
	local log executions
	log=$(mktemp)
	# shellcheck disable=SC2064 # the file of now is meant
	trap "rm -f '$log'" RETURN
	echo "== ${1##*/}.$2"
	go -C "$1" test -run "^\$" -fuzz "^$2\$" -fuzztime "$fuzz_time" -fuzzminimizetime "$minimize" . </dev/null | tee "$log" || return 1
	executions=$({ grep -o 'execs: [0-9]*' "$log" || true; } | tail -n 1)
	executions=${executions#execs: }
	((${executions:-0} >= least)) || {
		echo "fuzz.sh: error: ${1##*/}.$2 ran ${executions:-nothing}, less than $least" >&2
		return 1
	}
}

# Print the directories of the packages of all modules.
packages() {
	local module
	while read -r module; do go -C "${module%/go.mod}" list -f '{{.Dir}}' ./...; done < <(find . -name go.mod -not -path '*/testdata/*')
}

main() {
	cd "$(dirname "$(realpath "$0")")/.."
	fuzz_time=${1:?TIME}
	if (($# > 1)); then
		fuzz "$2" "${3:?NAME}"
		return
	fi
	local directory name status=0
	for directory in $(packages); do
		for name in $({ grep -hoE '^func Fuzz\w+' "$directory"/*_test.go 2>/dev/null || true; } | cut -d ' ' -f 2); do
			fuzz "$directory" "$name" || status=1
		done
	done
	return $status
}

main "$@"
