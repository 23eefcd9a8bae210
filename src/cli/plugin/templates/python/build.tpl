#!/bin/sh
# Builds NAME.wasm. Needs Python 3.10 or later. ROSTER is the path of the program `roster`, if it is not on the PATH.
# The component has 18 MB. Only organizations in plugins.large_organizations can upload it: pass `--large` to check, test
# and bench.
set -eu
cd "$(dirname "$0")"
need() { # need PROGRAM COMMAND_THAT_BRINGS_IT
  command -v "$1" >/dev/null || { echo "build: there is no $1. Get it with: $2" >&2; exit 1; }
}
need "${ROSTER:-roster}" "cargo build --release in Roster's folder, then ROSTER=/path/to/roster ./build"
need python3 'apt-get install python3 python3-venv'
[ -d .venv ] || python3 -m venv .venv || {
  echo 'build: Python cannot create a virtual environment. Get the missing package with: apt-get install python3-venv' >&2
  exit 1
}
[ -x .venv/bin/componentize-py ] || .venv/bin/pip install --quiet componentize-py==0.25.1
# Without --stub-wasi it would import clocks, files and sockets.
.venv/bin/componentize-py -d wit -w WORLD componentize --stub-wasi -p . app -o NAME.wasm
"${ROSTER:-roster}" plugin pack NAME.wasm --vectors vectors.yaml -o NAME.wasm
