#!/bin/sh
# Builds NAME.wasm. Needs Python 3.10 or later. ROSTER says where the program `roster` is, if not on the PATH.
# It has 18 MB, which only organizations in plugins.large_organizations may upload: give `--large` to check, test and bench.
set -eu
cd "$(dirname "$0")"
[ -d .venv ] || python3 -m venv .venv
[ -x .venv/bin/componentize-py ] || .venv/bin/pip install --quiet componentize-py==0.25.1
# Without --stub-wasi it would import clocks, files and sockets.
.venv/bin/componentize-py -d wit -w WORLD componentize --stub-wasi -p . app -o NAME.wasm
"${ROSTER:-roster}" plugin pack NAME.wasm --vectors vectors.yaml -o NAME.wasm
