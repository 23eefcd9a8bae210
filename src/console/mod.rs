//! Pages for people, rendered on the server: the first administrator's, and those behind links for the invited and for a
//! new password.

pub mod invitation;
pub mod page;
pub mod reset;
pub mod setup;
