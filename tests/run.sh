#!/usr/bin/env bash
# Builds with the tests and runs all of them; ends with ctest's summary.
#   tests/run.sh [CTEST-OPTION...]        such as -R queue, or --repeat until-fail:10
# CC chooses the compiler, ORCH_SANITIZE sanitizers (address,undefined or thread), ORCH_BUILD the build folder.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
build=${ORCH_BUILD:-$root/build-tests}
sh "$root/deploy/packages.sh" run build test
cmake -S "$root" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE="${ORCH_BUILD_TYPE:-Release}" -DORCH_TESTS=ON \
    -DORCH_SANITIZE="${ORCH_SANITIZE:-}" >/dev/null
cmake --build "$build"
ulimit -n "$(ulimit -Hn)" 2>/dev/null || true
exec ctest --test-dir "$build" --output-on-failure --no-tests=error -j "$(nproc)" "$@"
