#!/usr/bin/env bash
# ./build.sh [OUTPUT]: needs clang and lld 14 or newer (Debian: apt-get install clang lld).
set -euo pipefail
folder=$(dirname "$0")
exec clang --target=wasm32 -O2 -Wall -Wextra -Werror -nostdlib -Wl,--no-entry \
    -o "${1:-thermostat.wasm}" "${folder}/thermostat.c"
