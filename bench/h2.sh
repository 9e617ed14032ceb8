#!/bin/sh
# Instructions and write calls of one unary call over HTTP/2, on the server and on the client, ours beside the
# h2 crate by hand. Wants valgrind and strace. Run from anywhere: bench/h2.sh
set -eu
cd "$(dirname "$0")"
target=${CARGO_TARGET_DIR:-target}
cargo build --quiet --release --bin h2
program=$target/release/h2
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# run SERVER CLIENT CALLS, with $around_server and $around_client before the commands
run() {
    : >"$scratch/port"
    $around_server "$program" server "$1" >"$scratch/port" 2>>"$scratch/log" &
    server=$!
    until [ -s "$scratch/port" ]; do sleep 0.05; done
    $around_client "$program" client "$2" "$(cat "$scratch/port")" "$3" 2>>"$scratch/log"
    wait "$server"
}

instructions() { sed -n 's/^summary: //p;s/^totals: //p' "$1" | head -n 1; }

callgrind="valgrind --tool=callgrind --callgrind-out-file=$scratch/out"
for side in raw tower; do
    for calls in 1000 6000; do
        around_server=$callgrind around_client= run $side raw $calls
        eval "server_$calls=$(instructions "$scratch/out")"
        around_server= around_client=$callgrind run raw $side $calls
        eval "client_$calls=$(instructions "$scratch/out")"
    done
    around_server="strace -f -c -o $scratch/calls -e trace=write,writev,sendto,sendmsg" \
        around_client= run $side raw 20000
    writes=$(awk '/write|send/ { sum += $4 } END { print sum + 0 }' "$scratch/calls")
    printf '%-6s server %6d  client %6d instructions a call, %s writes of the server for 20000 calls\n' \
        $side $(((server_6000 - server_1000) / 5000)) $(((client_6000 - client_1000) / 5000)) "$writes"
done
