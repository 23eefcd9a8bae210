# NAME

A Roster plugin for the world `WORLD` of wit/policy.wit.

    ./build                                # builds NAME.wasm, which contains vectors.yaml
    roster plugin check NAME.wasm          # validates it as an upload does
    roster plugin test NAME.wasm           # runs the vectors of vectors.yaml
    roster plugin bench NAME.wasm          # measures calls
    roster plugin test NAME.wasm FILE      # runs the vectors of FILE

plugins/README.md of Roster describes its input, its limits and how to activate it.
