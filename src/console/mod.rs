//! Pages for people, rendered on the server. For now only the one that makes the first administrator.

pub mod setup;
