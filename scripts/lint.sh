#!/usr/bin/env bash
# Lint the tree: Go for both architectures, and the shell scripts. This script pins the tools and builds them once into
# the cache.
set -euo pipefail

golangci=v2.15.0
staticcheck=v0.8.2 # if golangci-lint cannot be installed

here=$(dirname "$(realpath "$0")")
cache=${UBLK_LOOP_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/ublk-loop}

# Build the tool of module $1, package $2, version $3 as bin/NAME-VERSION in the cache, and print its path.
tool() {
	local name=${2##*/} path
	path=$cache/bin/$name-$3
	if [[ ! -x $path ]]; then
		echo "lint.sh: building $name $3 (once)" >&2
		mkdir -p "$cache/bin"
		GOFLAGS='' GOARCH='' GOBIN=$cache/bin go install "$1/$2@$3" >&2 || return 1
		mv "$cache/bin/$name" "$path"
	fi
	echo "$path"
}

# Run a check. After a failure the next checks still run.
check() { "$@" || status=1; }

# Print each package of the module here that has more than 30 files besides tests.
large_packages() { go list -f '{{len .GoFiles}} {{.ImportPath}}' ./... | awk '$1 > 30 { print $2 ": " $1 " files, more than 30" }'; }

# Print the lines $1, and fail if there are any. This does not open /dev/stderr, which would empty a log file.
no_lines() { [[ -z $1 ]] || { printf '%s\n' "$1" >&2; status=1; }; }

# Lint the Go module in directory $1.
lint_go() {
	local linter
	cd "$1"
	if linter=$(tool github.com/golangci/golangci-lint/v2 cmd/golangci-lint $golangci); then
		check "$linter" run --config "$top/.golangci.yml"
		check env GOARCH=arm64 "$linter" run --config "$top/.golangci.yml"
		check "$linter" fmt --diff --config "$top/.golangci.yml"
		return
	fi
	echo "lint.sh: cannot install golangci-lint; using go vet and staticcheck" >&2
	linter=$(tool honnef.co/go/tools cmd/staticcheck $staticcheck)
	check go vet ./...
	check env GOARCH=arm64 go vet ./...
	check "$linter" ./...
	no_lines "$(gofmt -d .)"
}

status=0
top=$(realpath "$here/..")
for module in "$top" "$top/scripts/bench" "$top/cmd/ublk-loop-snapshotter" "$top/cmd/ublk-loop-csi"; do
	lint_go "$module"
	no_lines "$(large_packages)"
	check go mod tidy -diff
done
cd "$top"
check "$here/setup.sh" shellcheck
check shellcheck scripts/*.sh packaging/*/*.sh .ci/run
exit $status
