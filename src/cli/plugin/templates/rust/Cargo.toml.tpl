[package]
name = "NAME"
version = "0.1.0"
edition = "2021"
publish = false

[lib]
name = "plugin"
crate-type = ["cdylib"]

[dependencies]
talc = { version = "5.1", default-features = false }
wit-bindgen = { version = "0.63", default-features = false, features = ["macros", "realloc"] }

[profile.release]
opt-level = "s"
lto = true
codegen-units = 1
panic = "abort"
strip = true

# A workspace of its own, even inside the folder of another one.
[workspace]
