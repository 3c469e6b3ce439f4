#!/usr/bin/env bash
# ./build.sh [OUTPUT]: needs cargo and the target wasm32-unknown-unknown
# (rustup target add wasm32-unknown-unknown; Debian: apt-get install cargo libstd-rust-dev-wasm32 lld).
set -euo pipefail
folder=$(cd "$(dirname "$0")" && pwd)
target=${CARGO_TARGET_DIR:-${folder}/target}
cargo build --quiet --offline --release --target wasm32-unknown-unknown \
    --manifest-path "${folder}/Cargo.toml" --target-dir "${target}"
cp "${target}/wasm32-unknown-unknown/release/thermostat.wasm" "${1:-thermostat.wasm}"
