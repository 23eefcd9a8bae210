# NAME

A plugin of Roster, of the world `WORLD` in wit/policy.wit.

    ./build                                # makes NAME.wasm, with vectors.yaml in it
    roster plugin check NAME.wasm          # would it be taken?
    roster plugin test NAME.wasm           # asks what is in vectors.yaml
    roster plugin bench NAME.wasm
    roster plugin test NAME.wasm FILE      # asks what is in FILE

What it is told, what it may do and how it is put in force: plugins/README.md of Roster.
