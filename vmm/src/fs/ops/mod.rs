//! The operations, by what they are about.

mod attributes;
mod data;
mod directory;
mod extended;
mod names;
mod open;
