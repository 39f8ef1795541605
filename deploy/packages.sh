#!/bin/sh
# Installs the Debian packages that are missing for the groups named:  deploy/packages.sh run build test
# Uses sudo when it is not run as root, and says what it does.
set -eu

packages_run="redis-server libzmq5 libcurl4 libmsgpackc2 libsqlite3-0 libhiredis0.14 libyaml-0-2 libuv1
    libjansson4 libmicrohttpd12 ca-certificates openssl stunnel4"
packages_build="gcc libc6-dev cmake ninja-build pkg-config libzmq3-dev libcurl4-openssl-dev libmsgpack-dev
    libsqlite3-dev libhiredis-dev libyaml-dev libuv1-dev libjansson-dev libmicrohttpd-dev uthash-dev"
packages_test="libcmocka-dev redis-server bash procps iproute2 jq curl openssl stunnel4"
packages_ci="clang-14 clang-format-14 clang-tidy-14 libclang-rt-14-dev jq"

wanted=
for group in "$@"; do
    case $group in
    run) wanted="$wanted $packages_run" ;;
    build) wanted="$wanted $packages_build" ;;
    test) wanted="$wanted $packages_test" ;;
    ci) wanted="$wanted $packages_ci" ;;
    *)
        echo "usage: deploy/packages.sh [run] [build] [test] [ci]" >&2
        exit 2
        ;;
    esac
done

missing=
for package in $wanted; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

as_root=
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || {
        echo "These Debian packages are missing:$missing" >&2
        echo "Install them as root, then run this again: apt-get install --no-install-recommends$missing" >&2
        exit 1
    }
    as_root=sudo
fi
echo "Installing Debian packages:$missing" >&2
# A server that a package brings must not start here: the stack runs its own redis-server.
policy=/usr/sbin/policy-rc.d
made_policy=
if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' | $as_root tee $policy >/dev/null
    $as_root chmod 755 $policy
    made_policy=1
fi
remove_policy() { [ -z "$made_policy" ] || $as_root rm -f $policy; }
trap remove_policy EXIT
export DEBIAN_FRONTEND=noninteractive
$as_root apt-get update -qq >&2
# shellcheck disable=SC2086
$as_root apt-get install -y -qq --no-install-recommends $missing >&2
