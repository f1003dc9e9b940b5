//! Root file systems of machines: made, mounted, measured, limited, saved and copied.
//!
//! Owns what stands below a machine's directory beside `machine.toml`.
