#!/bin/sh
# Builds NAME.wasm. Needs node 20 or later with npm. ROSTER is the path of the program `roster`, if it is not on the PATH.
set -eu
cd "$(dirname "$0")"
need() { # need PROGRAM COMMAND_THAT_BRINGS_IT
  command -v "$1" >/dev/null || { echo "build: there is no $1. Get it with: $2" >&2; exit 1; }
}
need "${ROSTER:-roster}" "cargo build --release in Roster's folder, then ROSTER=/path/to/roster ./build"
need node 'apt-get install nodejs npm, or https://nodejs.org (20 or later)'
node -e 'process.exit(process.versions.node.split(".")[0] < 20 ? 1 : 0)' || {
  echo "build: node $(node --version) is too old. Get 20 or later with: apt-get install nodejs, or https://nodejs.org" >&2
  exit 1
}
[ -d node_modules/componentize-qjs ] || need npm 'apt-get install npm'
[ -d node_modules/componentize-qjs ] || npm install --no-audit --no-fund
# Without --sync it would need asynchronous components; without --stub-wasi it would import clocks and files.
npx --no-install componentize-qjs --wit wit --world WORLD --js plugin.mjs --stub-wasi --sync --minify --opt-size -o NAME.wasm
"${ROSTER:-roster}" plugin pack NAME.wasm --vectors vectors.yaml -o NAME.wasm
