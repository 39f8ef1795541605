#!/usr/bin/env bash
# Builds in Release and prints the table of docs/performance.md:  tests/bench/run.sh [--json] [NAME...]
# BullMQ, the peer of the queue, is installed from the npm registry into the build folder where node is there.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
build=${ORCH_BENCH_BUILD:-$root/build-bench}
sh "$root/deploy/packages.sh" run build test
generator=()
command -v ninja >/dev/null && generator=(-G Ninja)
cmake -S "$root" -B "$build" "${generator[@]}" -DCMAKE_BUILD_TYPE=Release -DORCH_BENCH=ON >/dev/null
cmake --build "$build" -j"$(nproc)" >&2

peer=$build/bullmq
if command -v node >/dev/null && command -v npm >/dev/null; then
    mkdir -p "$peer"
    cp "$root"/tests/bench/bullmq/* "$peer/"
    [ -d "$peer/node_modules/bullmq" ] || (cd "$peer" && npm install --no-audit --no-fund --ignore-scripts >&2) || rm -rf "$peer"
fi
[ -d "$peer/node_modules/bullmq" ] || { peer=; echo "bench: node or BullMQ is missing: its column stays empty" >&2; }
ulimit -n "$(ulimit -Hn)" 2>/dev/null || true
ORCH_BULLMQ=$peer ORCH_BIN=$build/bin exec "$build/bin/orch-bench" "$@"
