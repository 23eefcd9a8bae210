//! Pages for people, rendered on the server: the first administrator's, and the one behind a link for a new password.

mod page;
pub mod reset;
pub mod setup;
