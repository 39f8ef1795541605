#!/usr/bin/env bash
# Half of the peak rate for a while: memory and descriptors of every process, and Redis's memory, must stay where they
# are. Prints the slope of each per hour (least squares over the second part of the run) and ends with 1 when one of
# them is beyond its bound and beyond the noise.
#
#   tests/chaos/soak.sh [MINUTES]          default 30
#   SOAK_RATE   subtasks per second (default 4000: half of the peak of docs/performance.md)
#   ORCH_BIN    where the programs are (default: build-bench/bin, else build-tests/bin, else build/bin)
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
minutes=${1:-30}
rate=${SOAK_RATE:-4000}
bin=${ORCH_BIN:-}
for dir in "$root/build-bench/bin" "$root/build-tests/bin" "$root/build/bin"; do
    [ -n "$bin" ] || [ ! -x "$dir/orch-soak-load" ] || bin=$dir
done
[ -x "$bin/orch-soak-load" ] || { echo "soak.sh: build with -DORCH_BENCH=ON first, or set ORCH_BIN" >&2 && exit 2; }
command -v redis-server >/dev/null || { echo "soak.sh: redis-server is missing" >&2 && exit 2; }

dir=$(mktemp -d "${TMPDIR:-/tmp}/orch-soak.XXXXXX")
names=() pids=()
cleanup() {
    [ ${#pids[@]} -eq 0 ] || kill -KILL "${pids[@]}" 2>/dev/null || true
    wait 2>/dev/null || true
    rm -rf "$dir"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
export ORCHESTRATOR_HOME=$dir ORCHESTRATOR_CONFIG=$dir/config.yaml
mkdir -m 700 "$dir/redis" "$dir/run"
cat >"$dir/config.yaml" <<YAML
redis: unix://$dir/redis.sock
bus: {brokers: [local]}
queue: {retain_s: 5}
providers: {noop: {api: noop}}
models: {noop: {provider: noop, name: noop, local: true}}
workers: [{name: w1, provider: noop, concurrency: 128}, {name: w2, provider: noop, concurrency: 128}]
roles: {general: {models: [noop]}}
YAML

start() { # NAME PROGRAM...
    local name=$1 i
    shift
    : >"$dir/$name.ready"
    "$@" --ready-fd 3 3>"$dir/$name.ready" >>"$dir/$name.log" 2>&1 &
    names+=("$name") pids+=($!)
    for ((i = 0; i < 600; i++)); do
        ! grep -q '^ready' "$dir/$name.ready" || return 0
        sleep 0.05
    done
    echo "soak.sh: $name did not get ready: $(tail -3 "$dir/$name.log")" >&2
    exit 2
}
redis-server --unixsocket "$dir/redis.sock" --port 0 --dir "$dir/redis" --appendonly yes --appendfsync always --save "" \
    --maxmemory-policy noeviction >"$dir/redis.log" 2>&1 &
names+=(redis) pids+=($!)
until redis-cli -s "$dir/redis.sock" ping >/dev/null 2>&1; do sleep 0.05; done
start broker "$bin/orchestrator-broker"
start daemon "$bin/orchestrator" serve
start w1 "$bin/orchestrator-worker" --name w1
start w2 "$bin/orchestrator-worker" --name w2
"$bin/orch-soak-load" "$rate" $((minutes * 60)) >"$dir/load.log" 2>&1 &
load=$!
pids+=("$load")

# One line a sample: seconds, then "name.rss" in KiB and "name.fds" of each process, then Redis's used memory in KiB.
sample() {
    local i pid line=$1
    for i in "${!names[@]}"; do
        pid=${pids[$i]}
        kill -0 "$pid" 2>/dev/null || { echo "soak.sh: ${names[$i]} has ended: $(tail -3 "$dir/${names[$i]}.log")" >&2 && exit 1; }
        line="$line $(awk '/^VmRSS/ { print $2 }' "/proc/$pid/status") $(find "/proc/$pid/fd" -mindepth 1 2>/dev/null | wc -l)"
    done
    echo "$line $(redis-cli -s "$dir/redis.sock" info memory | awk -F: '/^used_memory:/ { printf "%d", $2 / 1024 }')"
}
from=$(date +%s)
every=$((minutes > 5 ? 5 : 1))
while kill -0 "$load" 2>/dev/null; do
    sample $(($(date +%s) - from)) >>"$dir/samples"
    sleep "$every"
done
wait "$load" || { tail -3 "$dir/load.log" >&2 && exit 1; }
cat "$dir/load.log"

# The first 40 % of the samples are the start: caches and allocators fill. The noise is twice the standard error of the slope;
# bounds per hour: 4 MiB and 5 % of a process, 10 descriptors, 20 MiB of Redis.
awk -v names="${names[*]}" '
    { for (i = 1; i <= NF; i++) v[NR, i] = $i; columns = NF }
    function fit(c,    i, n, sx, sy, sxx, sxy, b, a, e, sse) {
        n = sx = sy = sxx = sxy = sse = 0
        for (i = first; i <= NR; i++) { n++; sx += v[i, 1]; sy += v[i, c]; sxx += v[i, 1] ^ 2; sxy += v[i, 1] * v[i, c] }
        b = (n * sxy - sx * sy) / (n * sxx - sx * sx); a = (sy - b * sx) / n
        for (i = first; i <= NR; i++) { e = v[i, c] - a - b * v[i, 1]; sse += e * e }
        mean = sy / n; slope = b * 3600
        noise = 2 * 3600 * sqrt(sse / (n - 2) / (sxx - sx * sx / n))
    }
    function row(what, unit, bound) {
        bad = slope > bound && slope - noise > bound
        printf "%-22s %12.0f %-6s %12.1f /h  +- %-10.1f bound %-10.0f %s\n", what, mean, unit, slope, noise, bound, bad ? "GROWS" : "flat"
        worst = worst || bad
    }
    END {
        first = int(NR * 0.4) + 1
        if (NR - first < 5) { print "soak.sh: too few samples for a slope"; exit 2 }
        n = split(names, name, " ")
        printf "%-22s %12s %-6s %12s\n", "what", "mean", "", "slope"
        for (p = 1; p <= n; p++) {
            fit(2 * p); row(name[p] " memory", "KiB", 4096 + mean * 0.05)
            fit(2 * p + 1); row(name[p] " descriptors", "", 10)
        }
        fit(columns); row("redis used_memory", "KiB", 20480)
        exit worst
    }' "$dir/samples"
