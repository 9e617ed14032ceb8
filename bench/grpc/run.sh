#!/bin/sh
# What a gRPC call costs on the server and on the client: instructions, writes, and CPU time. Wants valgrind
# and strace. Run from anywhere: bench/grpc/run.sh
set -eu
cd "$(dirname "$0")"
cargo build --quiet --release
program=${CARGO_TARGET_DIR:-target}/release/bench-grpc
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# serve WHO [COMMAND…]: starts a server, under COMMAND; sets $server and $port
serve() {
    served=$1
    shift
    : >"$scratch/port"
    "$@" "$program" server "$served" >"$scratch/port" 2>>"$scratch/log" &
    server=$!
    until [ -s "$scratch/port" ]; do sleep 0.05; done
    port=$(cat "$scratch/port")
}

stop() {
    kill "$server"
    wait "$server" 2>>"$scratch/log" || true
}

count() { sed -n 's/^summary: //p;s/^totals: //p' "$scratch/out" | head -n 1; }

callgrind="valgrind --tool=callgrind --callgrind-out-file=$scratch/out"
for who in raw tonic tower; do
    for calls in 1000 6000; do
        serve $who $callgrind
        "$program" client raw "$port" $calls
        stop
        eval "server_$calls=$(count)"
        serve raw
        $callgrind "$program" client $who "$port" $calls 2>>"$scratch/log"
        stop
        eval "client_$calls=$(count)"
    done
    echo "$who: server $(((server_6000 - server_1000) / 5000)), client $(((client_6000 - client_1000) / 5000)) instructions a unary call"

    if [ $who != raw ]; then
        for messages in 10000 60000; do
            serve $who $callgrind
            "$program" stream "$port" $messages
            stop
            eval "stream_$messages=$(count)"
        done
        echo "$who: $(((stream_60000 - stream_10000) / 50000)) instructions a message of a stream"
    fi

    serve $who
    strace -f -c -p "$server" -o "$scratch/calls" -e trace=write,writev,sendto,sendmsg 2>>"$scratch/log" &
    tracer=$!
    sleep 1
    "$program" client raw "$port" 20000
    kill -INT "$tracer"
    wait "$tracer" || true
    stop
    echo "$who: $(awk '/write|send/ { sum += $4 } END { print sum + 0 }' "$scratch/calls") writes of the server for 20000 calls"

    serve $who
    "$program" client raw "$port" 1000
    before=$(awk '{ print $14 + $15 }' "/proc/$server/stat")
    "$program" client raw "$port" 200000
    after=$(awk '{ print $14 + $15 }' "/proc/$server/stat")
    stop
    # Ticks are of 10 ms.
    echo "$who: $(((after - before) * 10000 / 200)) ns of CPU a unary call on the server"
done
