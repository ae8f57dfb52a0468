#!/usr/bin/env bash
# Runs a broker and a worker of one app until Ctrl-C, or until one of them ends; `make serve` calls it.
#
#   scripts/serve.sh BIN_DIRECTORY MODULE:APP
#
# The worker is stopped before the broker, so that what it finishes while it drains is still taken in.
set -euo pipefail

bin=$1
app=$2
data=.run/serve

mkdir -p "$data"
"$bin/tq-broker" --data "$data" &
broker=$!
"$bin/tq-worker" -A "$app" &
worker=$!

stop() {
    trap - EXIT INT TERM
    for process in "$worker" "$broker"; do
        kill -TERM "$process" 2>/dev/null || true
        wait "$process" || true
    done
}
trap stop EXIT
trap 'exit 0' INT TERM

wait -n "$broker" "$worker"
