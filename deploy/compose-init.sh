#!/bin/sh
# Makes, once, what the containers of docker-compose.yml share: keys of the bus, passwords of Redis, and the
# configuration with them. Arguments: the workers.
#   $ROOT/main     for broker and daemon: config.yaml, keys/
#   $ROOT/workers  for workers: config.yaml with a user of fewer rights, keys/ without the brokers' secret key
#   $ROOT/redis    users.acl
# What is there stays; to make all anew: docker compose down, then docker volume rm its volumes but redis.
set -eu
umask 077
root=${ROOT:-/shared}
template=${TEMPLATE:-/etc/orchestrator/template.yaml}
export ORCHESTRATOR_HOME="${ORCHESTRATOR_HOME:-/tmp/home}"

[ -e "$root/redis/users.acl" ] && exit 0
secret() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }
hash() { printf %s "$1" | sha256sum | cut -d' ' -f1; }

mkdir -p "$root/main/keys" "$root/workers/keys" "$root/redis"
names=
for worker in "$@"; do names="$names --worker $worker"; done
# shellcheck disable=SC2086
orchestrator keys init "$root/main/keys" --config "$template" $names >/dev/null
cp "$root/main/keys/broker.pub" "$root/workers/keys/"
for worker in "$@"; do
    cp "$root/main/keys/worker-$worker.key" "$root/main/keys/worker-$worker.pub" "$root/workers/keys/"
    rm "$root/main/keys/worker-$worker.key"
done

own=$(secret)
workers=$(secret)
sed "s|redis://redis:|redis://default:$own@redis:|" "$template" >"$root/main/config.yaml"
sed "s|redis://redis:|redis://workers:$workers@redis:|" "$template" >"$root/workers/config.yaml"
{
    echo "user default on #$(hash "$own") ~* &* +@all"
    echo "user workers on #$(hash "$workers") $(orchestrator keys acl worker --config "$template")"
} >"$root/redis/users.new"
# The Redis image runs as another user; the file has hashes of random passwords only.
chmod 755 "$root/redis"
chmod 644 "$root/redis/users.new"
mv "$root/redis/users.new" "$root/redis/users.acl"
