#!/bin/sh
# Fuzzes every parser of outside input in turn, one process at a time, and prints a table.
#   tests/fuzz/run.sh [SECONDS [TARGET...]]    SECONDS of each target, 60 by default
# New inputs are kept in $BUILD/inputs/TARGET and used again; what crashes is left in $BUILD/crashes.
# Exits with 1 when something crashed, ran out of time or of memory. BUILD: build-fuzz by default.
set -eu

source_dir=$(cd "$(dirname "$0")/../.." && pwd)
seconds=${1:-60}
[ $# -gt 0 ] && shift
build=${BUILD:-$source_dir/build-fuzz}

CC=${CC:-clang-14} cmake -S "$source_dir" -B "$build" -G Ninja -DORCH_FUZZ=ON \
    -DCMAKE_BUILD_TYPE=RelWithDebInfo >"$build.log" 2>&1 || { cat "$build.log"; exit 2; }
targets=${*:-$(cd "$source_dir/tests/fuzz" && ls fuzz_*.c | sed 's/\.c$//')}
# shellcheck disable=SC2086
cmake --build "$build" --target $targets >>"$build.log" 2>&1 || { tail -50 "$build.log"; exit 2; }

mkdir -p "$build/crashes" "$build/inputs"
failed=0
printf '%-20s %8s %12s %8s %8s %8s\n' target seconds executions edges corpus crashes
for target in $targets; do
    mkdir -p "$build/inputs/$target"
    log=$build/inputs/$target.log
    # shellcheck disable=SC2086
    nice -n 19 "$build/bin/$target" -max_total_time="$seconds" -print_final_stats=1 \
        -rss_limit_mb=2048 -timeout=20 -artifact_prefix="$build/crashes/$target-" \
        ${FUZZ_OPTIONS:-} "$build/inputs/$target" "$source_dir/tests/fuzz/corpus/$target" \
        >"$log" 2>&1 && crashes=0 || crashes=1
    executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log" | tail -1)
    edges=$(sed -n 's/.*cov: \([0-9]*\).*/\1/p' "$log" | tail -1)
    corpus=$(find "$build/inputs/$target" -type f | wc -l)
    printf '%-20s %8s %12s %8s %8s %8s\n' "$target" "$seconds" "${executions:-?}" "${edges:-?}" \
        "$corpus" "$crashes"
    if [ "$crashes" -ne 0 ]; then
        failed=1
        echo "  $(grep -m1 -E 'ERROR|SUMMARY|runtime error|deadly' "$log" || tail -1 "$log"); see $log" >&2
    fi
done
exit $failed
