#!/bin/sh
# Builds NAME.wasm. ROSTER says where the program `roster` is, if not on the PATH.
set -eu
cd "$(dirname "$0")"
target=${CARGO_TARGET_DIR:-target}
if [ -d "$(rustc --print target-libdir --target wasm32-unknown-unknown)" ]; then
  cargo build --release --target wasm32-unknown-unknown --target-dir "$target"
else
  # Either `rustup target add wasm32-unknown-unknown`, or Debian's compiler, which builds the standard library too:
  # apt-get install --no-install-recommends rustc-web rust-web-src lld-22
  RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER=/usr/bin/wasm-ld-22 \
    cargo build --release --target wasm32-unknown-unknown --target-dir "$target" -Zbuild-std=std,panic_abort
fi
"${ROSTER:-roster}" plugin pack "$target/wasm32-unknown-unknown/release/plugin.wasm" --vectors vectors.yaml -o NAME.wasm
