#!/bin/sh
# Builds NAME.wasm. ROSTER is the path of the program `roster`, if it is not on the PATH.
set -eu
cd "$(dirname "$0")"
need() { # need PROGRAM COMMAND_THAT_BRINGS_IT
  command -v "$1" >/dev/null || { echo "build: there is no $1. Get it with: $2" >&2; exit 1; }
}
need "${ROSTER:-roster}" "cargo build --release in Roster's folder, then ROSTER=/path/to/roster ./build"
sources="plugin.c gen/WORLD_.c gen/WORLD__component_type.o"
# The default stack of Zig is as large as all the memory of a call.
flags="-mexec-model=reactor -Os -s -Wl,-z,stack-size=65536"
if command -v clang-19 >/dev/null && [ -x /usr/bin/wasm-ld-19 ]; then
  # shellcheck disable=SC2086 # Lists of words.
  clang-19 --target=wasm32-wasi --sysroot=/usr -fuse-ld=/usr/bin/wasm-ld-19 $flags $sources -o core.wasm
elif python3 -m ziglang version >/dev/null 2>&1; then
  # shellcheck disable=SC2086
  python3 -m ziglang cc -target wasm32-wasi $flags $sources -o core.wasm
else
  echo 'build: there is no compiler for WebAssembly. Get one with: pip install ziglang==0.17.1, or on Debian:' \
    'apt-get install --no-install-recommends clang-19 lld-19 libclang-rt-19-dev-wasm32 wasi-libc' >&2
  exit 1
fi
"${ROSTER:-roster}" plugin pack core.wasm --vectors vectors.yaml -o NAME.wasm
