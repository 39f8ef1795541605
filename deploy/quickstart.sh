#!/bin/sh
# From a clone to a finished task:  deploy/quickstart.sh [TEXT]
# Installs what is missing, builds, starts the local stack, submits TEXT (or an example), prints the result and
# writes its files below ./quickstart-output. Without keys and local models the simulator answers, and says so.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
text=${1:-"Write a small command-line to-do list in Python, with tests and a short README."}

echo "==> 1/3 packages" >&2
sh "$root/deploy/packages.sh" run build
echo "==> 2/3 build (into $root/build)" >&2
cmake -S "$root" -B "$root/build" -G Ninja -DCMAKE_BUILD_TYPE=Release >/dev/null
cmake --build "$root/build" >&2
echo "==> 3/3 one task: $text" >&2
out=$PWD/quickstart-output
"$root/build/bin/orchestrator" submit --out "$out" --force "$text"
echo >&2
echo "The stack goes on running. Next:" >&2
echo "  $root/build/bin/orchestrator submit 'your own task'" >&2
echo "  $root/build/bin/orchestrator status      what runs" >&2
echo "  $root/build/bin/orchestrator down        end it" >&2
