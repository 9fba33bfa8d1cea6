#!/usr/bin/env bash
# Run the tests, and end with the line "N passed, N failed, N skipped". The program is scripts/testrun; --help explains it.
set -euo pipefail

cd "$(dirname "$(realpath "$0")")/.."
CGO_ENABLED=0 go build -buildvcs=false -o bin/testrun ./scripts/testrun
exec bin/testrun "$@"
