//! What comes from OpenVZ.

pub mod import;
