//! What several targets share.
#![allow(dead_code, reason = "each target uses some of it")]

pub mod json;

use locule_runtime::Error;

/// What every refusal must be: said in one line, with something in it.
pub fn refused(err: &Error) {
    let text = err.to_string();
    assert!(text.trim().len() > 8, "a refusal that says nothing: {text:?}");
}
