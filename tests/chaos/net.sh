#!/usr/bin/env bash
# The whole system on eight hosts, which are network namespaces joined by orch-net-link, while the network between
# them is cut, slowed and spoiled. After each scenario everything must drain: nothing lost, nothing committed twice,
# no more calls than the scenario allows.
#
#   tests/chaos/net.sh [--short] [--seed N] [--curve] [--keep] [SCENARIO...]
#
#   --short   the baseline and three scenarios        --curve  keys and CURVE on the bus
#   --keep    leave the directory with logs           --list   names of the scenarios
#   ORCH_BIN  where the programs are (default: build-tests/bin, else build/bin); built with -DORCH_TESTS=ON
#
# Needs root (CAP_NET_ADMIN, CAP_SYS_ADMIN), iproute2, /dev/net/tun, jq and curl. Where namespaces are not permitted it
# says "skipped: ..." and ends well.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
short= seed=1 curve=false keep= wanted=()

# --- scenarios: name | commands for the link | seconds | most calls of one subtask | what it is
# The commands are sent when a quarter of the calls was made, and all is healed after the seconds.
scenarios='
baseline           |                                          |  0 | 1 | nothing is wrong
worker-redis       | set work1 queue cut=1                    |  8 | 2 | a worker cannot reach Redis
worker-broker      | set work1 bus1 cut=1; set work1 bus2 cut=1 |  8 | 1 | a worker cannot reach the brokers
worker-both        | set work1 queue cut=1; set work1 bus1 cut=1; set work1 bus2 cut=1 |  8 | 2 | a worker reaches neither
worker-to-redis    | one work1 queue cut=1                    |  8 | 2 | what a worker sends to Redis is lost
redis-to-worker    | one queue work1 cut=1                    |  8 | 2 | what Redis answers to a worker is lost
daemon-redis       | set brain1 queue cut=1                   |  8 | 1 | an orchestrator cannot reach Redis
broker-daemon      | set bus1 brain1 cut=1                    |  8 | 1 | a broker and an orchestrator cannot reach each other
redis-all          | set queue * cut=1                        | 20 | 2 | nobody reaches Redis for 20 s
half-open          | set work1 queue halfopen=1; set bus1 work2 halfopen=1; set brain1 queue halfopen=1 | 15 | 2 | connections die without a word
half-open-calls    | set work1 cloud halfopen=1               | 15 | 2 | calls to the provider die without a word
delay              | set * * delay=100 jitter=50              | 15 | 1 | 100 ms, give or take 50
loss               | set * * loss=5                           | 15 | 2 | 5 % of the packets are lost
duplication        | set * * dup=5                            | 10 | 1 | 5 % of the packets come twice
reordering         | set * * reorder=20                       | 10 | 1 | 20 % of the packets come late
slow               | set * * rate=1000                        | 15 | 2 | 1 Mbit/s between any two hosts
'
short_scenarios="baseline worker-redis broker-daemon half-open"

say() { printf '%s\n' "$*"; }
skip() {
    say "skipped: $*"
    exit 0
}
usage() {
    sed -n '2,14s/^# \{0,1\}//p' "$0"
    exit "$1"
}
names() { awk -F'|' 'NF > 3 { gsub(/ /, "", $1); print $1 }' <<<"$scenarios"; }
field() { awk -F'|' -v name="$1" -v n="$2" 'NF > 3 { key = $1; gsub(/ /, "", key) } key == name { gsub(/^ +| +$/, "", $n); print $n }' <<<"$scenarios"; }

while [ $# -gt 0 ]; do
    case $1 in
    --short) short=1 ;;
    --seed) seed=$2 && shift ;;
    --curve) curve=true ;;
    --keep) keep=1 ;;
    --list) names && exit 0 ;;
    --help) usage 0 ;;
    -*) usage 2 >&2 ;;
    *) wanted+=("$1") ;;
    esac
    shift
done
# shellcheck disable=SC2206
[ -z "$short" ] || [ ${#wanted[@]} -gt 0 ] || wanted=($short_scenarios)
# shellcheck disable=SC2207
[ ${#wanted[@]} -gt 0 ] || wanted=($(names))
for name in "${wanted[@]}"; do
    names | grep -qx -- "$name" || { say "net.sh: there is no scenario $name; --list names them" >&2 && exit 2; }
done

# --- what it needs
bin=${ORCH_BIN:-}
for dir in "$root/build-tests/bin" "$root/build/bin"; do
    [ -n "$bin" ] || [ ! -x "$dir/orch-net-link" ] || bin=$dir
done
[ -x "$bin/orch-net-link" ] || { say "net.sh: build with -DORCH_TESTS=ON first, or set ORCH_BIN" >&2 && exit 2; }
[ "$(id -u)" -eq 0 ] || skip "network namespaces need root"
for program in ip jq curl redis-server redis-cli; do
    command -v $program >/dev/null || skip "$program is not installed (deploy/packages.sh test)"
done
[ -c /dev/net/tun ] || skip "there is no /dev/net/tun"
prefix=orch$$
ip netns add "$prefix-try" 2>/dev/null || skip "network namespaces are not permitted here"
ip netns del "$prefix-try"

# --- hosts
hosts="queue bus1 bus2 brain1 brain2 work1 work2 work3 cloud" # cloud: the providers'; none of ours
workers="w1:work1 w2:work2 w3:work3 w4:work3"
address() {
    local i=1 host
    for host in $hosts; do
        [ "$host" != "$1" ] || { echo "10.77.0.$i" && return; }
        i=$((i + 1))
    done
}
dir=$(mktemp -d "${TMPDIR:-/tmp}/orch-net.XXXXXX")
pids=()

cleanup() {
    local host
    [ ${#pids[@]} -eq 0 ] || kill -KILL "${pids[@]}" 2>/dev/null || true
    wait 2>/dev/null || true
    for host in $hosts; do
        ip netns pids "$prefix-$host" 2>/dev/null | xargs -r kill -KILL 2>/dev/null || true
        ip netns del "$prefix-$host" 2>/dev/null || true
    done
    [ -n "$keep" ] && say "logs are in $dir" || rm -rf "$dir"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

on() { # HOST PROGRAM...
    local host=$1
    shift
    ip netns exec "$prefix-$host" env ORCHESTRATOR_HOME="$dir/$host" SIM_KEY=none "$@"
}
# The same for programs that stay: the process that runs this becomes the program. For use with &.
become() { # HOST PROGRAM...
    local host=$1
    shift
    exec ip netns exec "$prefix-$host" env ORCHESTRATOR_HOME="$dir/$host" SIM_KEY=none "$@"
}
# Starts a program and waits until it says that it is ready; pid is its process.
start() { # LOG HOST PROGRAM...
    local log=$dir/$1 host=$2 i
    shift 2
    : >"$log.ready"
    become "$host" "$@" --ready-fd 3 3>"$log.ready" >>"$log.log" 2>&1 &
    pid=$!
    pids+=("$pid")
    for ((i = 0; i < 600; i++)); do
        ! grep -q '^ready' "$log.ready" || return 0
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.05
    done
    say "$log did not get ready: $(cat "$log.ready"; tail -3 "$log.log")" >&2
    exit 1
}
link() { "$bin/orch-net-link" --control "$dir/link" --send "$1" >/dev/null || { say "the link refuses: $1" >&2 && exit 1; }; }

start_hosts() {
    local host args=()
    for host in $hosts; do
        ip netns add "$prefix-$host"
        mkdir -m 700 -p "$dir/$host"
        args+=("$host=$prefix-$host")
    done
    : >"$dir/link.ready"
    "$bin/orch-net-link" --control "$dir/link" --seed "$seed" --ready-fd 3 "${args[@]}" 3>"$dir/link.ready" >"$dir/link.log" 2>&1 &
    pids+=($!)
    local i
    for ((i = 0; i < 200; i++)); do
        ! grep -q ready "$dir/link.ready" || return 0
        sleep 0.05
    done
    skip "TUN devices are not permitted here: $(cat "$dir/link.log")"
}

# --- the programs: one simulator for each worker, so that calls are counted by who pays for them
write_config() { # NAME PORT
    cat >"$dir/$1.yaml" <<YAML
redis: redis://$(address queue):6379
bus:
  brokers: ["tcp://$(address bus1):5570", "tcp://$(address bus2):5570"]
  heartbeat_ms: 300
  curve: {enabled: $curve, keys: $dir/keys}
queue: {lease_ms: 4000, renew_ms: 1000, abandon_ms: 2500, max_attempts: 8}
providers:
  sim: {api: openai, base_url: "http://$(address cloud):$2", key: env:SIM_KEY, timeouts: {first_token_ms: 5000, gap_ms: 3000}, breaker: {failures: 0}}
models:
  m: {provider: sim, name: sim, context: 32768}
workers:
  - {name: w1, provider: sim, concurrency: 6}
  - {name: w2, provider: sim, concurrency: 6}
  - {name: w3, provider: sim, concurrency: 6}
  - {name: w4, provider: sim, concurrency: 6}
roles:
  general: {models: [m]}
YAML
}
write_scenario() { # seconds of a call, in tokens at 50/s
    printf 'timing: {decode_tps: 50, jitter: 0.2}\nrules:\n  - {match: {}, tokens: %s, timing: {decode_tps: 50, jitter: 0.2}}\n' "$1" >"$dir/scenario.yaml"
}

make_keys() {
    local entry all=()
    for entry in $workers; do all+=(--worker "${entry%%:*}"); done
    write_config any 8080
    "$bin/orchestrator" keys init "$dir/keys" "${all[@]}" --config "$dir/any.yaml" >"$dir/keys.log" 2>&1 || {
        say "no keys: $(cat "$dir/keys.log")" >&2
        exit 1
    }
}
# What a program of this version needs to use a bus that is not encrypted.
openly() { # PROGRAM [COMMAND]
    [ "$curve" = true ] || ! "$bin/$1" ${2:+"$2"} --help 2>&1 | grep -q -- --insecure || echo --insecure
}

start_system() { # tokens of a call
    local entry name host i=0
    write_scenario "$1"
    become queue redis-server --bind 0.0.0.0 --port 6379 --protected-mode no --dir "$dir/queue" --appendonly yes \
        --appendfsync always --save "" --maxmemory-policy noeviction >>"$dir/redis.log" 2>&1 &
    pids+=($!)
    until on queue redis-cli ping >/dev/null 2>&1; do sleep 0.05; done
    write_config any 8080
    for host in bus1 bus2; do
        start "$host" "$host" "$bin/orchestrator-broker" --config "$dir/any.yaml" \
            --endpoint "tcp://$(address "$host"):5570" $(openly orchestrator-broker)
    done
    for host in brain1 brain2; do
        # An orchestrator says that it is ready when it leads; the second one may only stand by.
        become "$host" "$bin/orchestrator" serve --name "$host" --config "$dir/any.yaml" $(openly orchestrator serve) >>"$dir/$host.log" 2>&1 &
        pids+=($!)
    done
    for entry in $workers; do
        name=${entry%%:*} host=${entry##*:} i=$((i + 1))
        start "sim-$name" cloud "$bin/orchestrator-sim" --listen 0.0.0.0 --port $((8080 + i)) --scenario "$dir/scenario.yaml" --quiet
        write_config "$name" $((8080 + i))
        start "$name" "$host" "$bin/orchestrator-worker" --name "$name" --config "$dir/$name.yaml" $(openly orchestrator-worker)
    done
}
stop_system() {
    local kept=("${pids[0]}")
    [ ${#pids[@]} -lt 2 ] || kill -KILL "${pids[@]:1}" 2>/dev/null || true
    wait "${pids[@]:1}" 2>/dev/null || true
    pids=("${kept[@]}")
    rm -rf "$dir"/queue/* "$dir"/brain?/* "$dir"/work?/* "$dir"/bus?/*
}

# --- load
cli() { on brain2 "$bin/orchestrator" "$@" --config "$dir/any.yaml"; }
# A task of ten subtasks, of which three are a chain.
submit_tasks() { # HOW MANY
    local i j
    ids=()
    for ((i = 0; i < $1; i++)); do
        {
            echo "synthesize: false"
            echo "subtasks:"
            for ((j = 0; j < 8; j++)); do
                echo "  - {id: s$j, role: general, prompt: \"task $i part $j of $seed\"}"
            done
            echo "  - {id: s8, role: general, prompt: \"task $i part 8 of $seed\", depends_on: [s0, s1]}"
            echo "  - {id: s9, role: general, prompt: \"task $i part 9 of $seed\", depends_on: [s8]}"
        } >"$dir/plan.yaml"
        ids+=("$(cli submit --plan "$dir/plan.yaml" --detach --no-cache 2>>"$dir/cli.log")")
    done
}
# The calls that a worker's simulator has seen: a JSON array.
calls_of() { # WORKER
    on cloud curl -sf "http://127.0.0.1:$((8080 + ${1#w}))/sim/requests?limit=10000" | jq -c 'if type == "array" then . else .requests end'
}
all_calls() {
    local entry
    for entry in $workers; do calls_of "${entry%%:*}"; done | jq -cs 'add'
}
count_calls() { all_calls | jq length; }

# --- the judge: one line of findings, empty when all is well
judge() { # MOST CALLS OF A SUBTASK
    local id state
    for id in "${ids[@]}"; do
        cli show "$id" --json >"$dir/task.json" 2>>"$dir/cli.log" || true
        state=$(jq -r '.state // "missing"' "$dir/task.json")
        [ "${state,,}" = done ] || echo "task $id is $state"
        jq -r '.subtasks[] | select((.state | ascii_downcase) != "done") | "\(.id) is \(.state)"' "$dir/task.json"
        [ "$(jq '.subtasks | length' "$dir/task.json")" = 10 ] || echo "task $id does not have its ten subtasks"
        cli show "$id" --log 2>>"$dir/cli.log" | awk '$0 ~ / done( |$)/ && $0 !~ /task-done/ { n++ } END { exit n > 10 }' || echo "task $id has more commits than subtasks"
    done
    cli fsck >"$dir/fsck.out" 2>&1 || echo "fsck: $(head -1 "$dir/fsck.out")"
    all_calls | jq -r --argjson most "$1" --argjson total "$((${#ids[@]} * 10))" '
        group_by(.prompt_hash) as $groups
        | (if ($groups | length) != $total then "\($groups | length) of \($total) subtasks were called" else empty end),
          ($groups[] | select(length > $most) | "\(length) calls of \(.[0].prompt)")'
}

wait_for_tasks() { # SECONDS
    local left=$1
    cli wait "${ids[@]}" --timeout "$left" >/dev/null 2>>"$dir/cli.log" || true
}
now() { date +%s%N; }
since() { awk -v from="$1" -v to="$(now)" 'BEGIN { printf "%.1f", (to - from) / 1e9 }'; }

# A worker that cannot renew its leases stops its calls after abandon_ms, and begins none: its simulator tells.
watch_w1() { # SECONDS that are left of the cut; prints what is wrong
    local calls running
    sleep 4 # abandon_ms, a sweep, and the time in which a dead connection is noticed
    calls=$(calls_of w1 | jq length)
    running=$(calls_of w1 | jq 'map(select(.outcome == "running")) | length')
    [ "$running" -eq 0 ] || echo "w1 still pays for $running calls that it cannot commit"
    sleep "$(($1 - 4))"
    [ "$(calls_of w1 | jq length)" -eq "$calls" ] || echo "w1 has begun calls that it cannot commit"
}

failures=0
report() { # NAME CALLS TWICE SECONDS DRAINED VERDICT
    printf '%-16s %8s %8s %10s %10s  %s\n' "$@"
}
run_scenario() { # NAME
    local name=$1 commands seconds most tasks=16 tokens=25 started healed found= calls twice
    commands=$(field "$name" 2) seconds=$(field "$name" 3) most=$(field "$name" 4)
    [ -z "$short" ] || { seconds=$((seconds > 6 ? 6 : seconds)) tasks=8; }
    [ "$seconds" = 0 ] || tasks=$((tasks + seconds * 3))
    case $name in
    worker-redis | worker-both | worker-to-redis) tasks=12 tokens=300 ;; # calls longer than abandon_ms
    esac
    [ -z "$short" ] || [ "$tokens" = 25 ] || tasks=3
    start_system "$tokens"
    started=$(now)
    submit_tasks "$tasks"
    until [ "$(count_calls)" -ge $((tasks * 10 / 4)) ]; do sleep 0.2; done
    local IFS=';' command
    for command in $commands; do link "$(sed 's/^ *//; s/ *$//' <<<"$command")"; done
    unset IFS
    if [ "$tokens" = 300 ]; then
        found=$(watch_w1 "$seconds")
    else
        sleep "$seconds"
    fi
    link heal
    healed=$(now)
    wait_for_tasks 90
    local drained
    drained=$(since "$healed")
    found=$found$(judge "$most")
    calls=$(count_calls)
    twice=$((calls - tasks * 10))
    if [ -n "$found" ]; then
        failures=$((failures + 1))
        report "$name" "$calls" "$twice" "$(since "$started")" "$drained" "FAILED"
        head -5 <<<"$found" | sed 's/^/    /'
        keep=1
        mkdir -p "$dir/failed-$name"
        cp "$dir"/*.log "$dir/failed-$name/"
    else
        report "$name" "$calls" "$twice" "$(since "$started")" "$drained" "ok"
    fi
    stop_system
}

start_hosts
[ "$curve" = false ] || make_keys
say "seed $seed; calls: paid for in all; again: of them for a subtask that had one already"
report scenario calls again seconds drained verdict
for name in "${wanted[@]}"; do run_scenario "$name"; done
[ "$failures" -eq 0 ] || { say "$failures scenarios failed" && exit 1; }
