//! Rules that hold for the whole code base, its schema and its OpenAPI document.

mod area_codes;
mod document;
mod grid;
mod layout;
mod lists;
mod matrix;
mod openapi;
pub mod schema;
pub mod tidy;
