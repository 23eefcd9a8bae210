//! Pages for people, rendered on the server: the first administrator's, those behind links for the invited and for a new
//! password, and the manual.

pub mod invitation;
pub mod manual;
pub mod page;
pub mod reset;
pub mod setup;
