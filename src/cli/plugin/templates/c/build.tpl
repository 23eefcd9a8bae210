#!/bin/sh
# Builds NAME.wasm. ROSTER says where the program `roster` is, if not on the PATH. Needs either of
#   apt-get install --no-install-recommends clang-19 lld-19 libclang-rt-19-dev-wasm32 wasi-libc
#   pip install ziglang==0.17.1
set -eu
cd "$(dirname "$0")"
sources="plugin.c gen/WORLD_.c gen/WORLD__component_type.o"
# Zig would give it a stack as large as all the memory of a call.
flags="-mexec-model=reactor -Os -s -Wl,-z,stack-size=65536"
if command -v clang-19 >/dev/null; then
  # shellcheck disable=SC2086 # Lists of words.
  clang-19 --target=wasm32-wasi --sysroot=/usr -fuse-ld=/usr/bin/wasm-ld-19 $flags $sources -o core.wasm
else
  # shellcheck disable=SC2086
  python3 -m ziglang cc -target wasm32-wasi $flags $sources -o core.wasm
fi
"${ROSTER:-roster}" plugin pack core.wasm --vectors vectors.yaml -o NAME.wasm
