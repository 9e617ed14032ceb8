#!/bin/sh
# Instructions per request of this crate's server and of hyper alone: the difference between 6000 and
# 1000 keep-alive requests. Needs valgrind and h2load (nghttp2-client).
set -eu
target=${CARGO_TARGET_DIR:-target}
cargo build --release --quiet -p tower-hyper --example cost
binary=$target/release/examples/cost
port=${PORT:-18080}

count() { # mode, requests
    out=$(mktemp)
    valgrind --tool=callgrind --callgrind-out-file="$out" "$binary" "127.0.0.1:$port" "$1" >/dev/null 2>&1 &
    server=$!
    for _ in $(seq 100); do
        curl -s -o /dev/null "http://127.0.0.1:$port/" && break
        sleep 0.1
    done
    timeout 60 h2load --h1 -c1 -m"${DEPTH:-1}" -n "$2" "http://127.0.0.1:$port/" >/dev/null
    kill -TERM "$server"
    wait "$server" || true
    sed -n 's/^\(summary\|totals\): *//p' "$out" | head -1
    rm -f "$out"
}

for mode in ours bare bare-hyper ${MODES:-}; do
    few=$(count "$mode" 1000)
    many=$(count "$mode" 6000)
    echo "$mode $(( (many - few) / 5000 ))"
done
