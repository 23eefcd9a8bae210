#!/bin/sh
# Builds NAME.wasm. Needs node 20 or later with npm. ROSTER says where the program `roster` is, if not on the PATH.
set -eu
cd "$(dirname "$0")"
[ -d node_modules/componentize-qjs ] || npm install --no-audit --no-fund
# Without --sync it would need asynchronous components; without --stub-wasi it would import clocks and files.
npx --no-install componentize-qjs --wit wit --world WORLD --js plugin.mjs --stub-wasi --sync --minify --opt-size -o NAME.wasm
"${ROSTER:-roster}" plugin pack NAME.wasm --vectors vectors.yaml -o NAME.wasm
