#!/usr/bin/env bash
# fuzz.sh TIME   run each fuzz test of the tree for TIME (such as 30s); go test takes one at a time
set -euo pipefail

cd "$(dirname "$(realpath "$0")")/.."
fuzz_time=${1:?TIME}

go list -f '{{.Dir}}' ./... | while read -r directory; do
	{ grep -hoE '^func Fuzz\w+' "$directory"/*_test.go 2>/dev/null || true; } | while read -r _ name; do
		echo "== ${directory##*/}.$name"
		go test -run '^$' -fuzz "^$name\$" -fuzztime "$fuzz_time" "$directory" </dev/null
	done
done
