#!/usr/bin/env bash
# Kills the real programs, and judges what is left: the table is on stdout, progress on stderr. Ends with 1 when
# something was lost, came twice, was not expected or was paid for twice; the seed repeats the run.
#   tests/chaos/run.sh --short                                    what CI runs, under three minutes
#   tests/chaos/run.sh [--sweep] [--random] [--figures] [--kills 1000] [--tasks 2000] [--seed S]     (--help: all options)
# CC chooses the compiler, ORCH_BUILD the build folder.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
build=${ORCH_BUILD:-$root/build-tests}
sh "$root/deploy/packages.sh" run build test
cmake -S "$root" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE="${ORCH_BUILD_TYPE:-Release}" -DORCH_TESTS=ON \
    -DORCH_SANITIZE="${ORCH_SANITIZE:-}" >/dev/null
cmake --build "$build" --target orchestrator orchestrator-broker orchestrator-worker orchestrator-sim orch-chaos >&2
ulimit -n "$(ulimit -Hn)" 2>/dev/null || true
export ORCH_BIN="$build/bin"
exec "$build/bin/orch-chaos" "$@"
