//! Rules that hold for the whole code base, its schema and its OpenAPI document.

pub mod area_codes;
pub mod document;
pub mod grid;
pub mod layout;
pub mod lists;
pub mod matrix;
pub mod openapi;
pub mod schema;
pub mod tidy;
