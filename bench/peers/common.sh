# What the scripts beside this share. Source it.
#
# CORES: the two cores, 0,1 if it is not set. Each script prints lines of `what | p50 of round trips, µs | p99`, or
# `what | MB/s`; `-` where the program does not tell.

set -euo pipefail
CORES=${CORES:-0,1}
own=${CORES%,*} other=${CORES#*,}

die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# need COMMAND PACKAGE
need() { command -v "$1" >/dev/null || die "there is no $1: apt-get install $2"; }

# serve COMMAND...: starts the answering side on the other core; it ends with the script.
serve() {
    taskset -c "$other" "$@" >/dev/null 2>&1 &
    server=$!
    trap 'kill $server 2>/dev/null || true; wait $server 2>/dev/null || true' EXIT
    sleep 1
}

# ask COMMAND...: the asking side on the own core.
ask() { taskset -c "$own" "$@"; }

# A port that is free by all likelihood.
port=$((20000 + $$ % 10000))
