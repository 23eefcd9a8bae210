//! Pages for people, rendered on the server.

pub mod invitation;
mod page;
pub mod setup;
