#!/bin/sh
# Builds NAME.wasm. ROSTER is the path of the program `roster`, if it is not on the PATH.
set -eu
cd "$(dirname "$0")"
need() { # need PROGRAM COMMAND_THAT_BRINGS_IT
  command -v "$1" >/dev/null || { echo "build: there is no $1. Get it with: $2" >&2; exit 1; }
}
need "${ROSTER:-roster}" "cargo build --release in Roster's folder, then ROSTER=/path/to/roster ./build"
need cargo 'the installer of https://rustup.rs, or apt-get install cargo'
target=${CARGO_TARGET_DIR:-target}
if [ -d "$(rustc --print target-libdir --target wasm32-unknown-unknown 2>/dev/null)" ]; then
  cargo build --release --target wasm32-unknown-unknown --target-dir "$target"
elif [ -x /usr/bin/rustc ] && [ -x /usr/bin/wasm-ld-22 ]; then
  # Debian's compiler builds the standard library too.
  RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER=/usr/bin/wasm-ld-22 \
    cargo build --release --target wasm32-unknown-unknown --target-dir "$target" -Zbuild-std=std,panic_abort
else
  echo 'build: this compiler makes no WebAssembly. Get one that does with: rustup target add wasm32-unknown-unknown,' \
    'or on Debian: apt-get install --no-install-recommends rustc-web rust-web-src lld-22' >&2
  exit 1
fi
"${ROSTER:-roster}" plugin pack "$target/wasm32-unknown-unknown/release/plugin.wasm" --vectors vectors.yaml -o NAME.wasm
