# NAME

A plugin of Roster (world `WORLD` of wit/policy.wit). Copies of the interface's words and of what it is told: `roster plugin wit`.

    ./build                                # makes NAME.wasm, with vectors.yaml in it
    roster plugin check NAME.wasm          # would an upload be taken?
    roster plugin test NAME.wasm           # asks what vectors.yaml has
    roster plugin bench NAME.wasm

FILES
