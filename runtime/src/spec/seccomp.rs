//! `linux.seccomp`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::null_as_default;

/// `linux.seccomp`; words stay text until the compiler reads them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Seccomp {
    /// `SCMP_ACT_…` for a system call that no rule names; absent with no rules turns seccomp off, as in runc.
    #[serde(default, deserialize_with = "null_as_default")]
    pub default_action: String,
    /// errno (or trace datum) of the default action.
    pub default_errno_ret: Option<u32>,
    /// `SCMP_ARCH_…`; empty means the native one.
    #[serde(default, deserialize_with = "null_as_default")]
    pub architectures: Vec<String>,
    /// `SECCOMP_FILTER_FLAG_…`; absent differs from empty, which asks for no flag at all.
    pub flags: Option<Vec<String>>,
    /// UNIX socket that gets the notification descriptor.
    pub listener_path: Option<PathBuf>,
    /// Opaque text for the listener.
    pub listener_metadata: Option<String>,
    /// Rules.
    #[serde(default, deserialize_with = "null_as_default")]
    pub syscalls: Vec<SeccompRule>,
}

/// An entry of `seccomp.syscalls`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SeccompRule {
    /// System call names.
    #[serde(default, deserialize_with = "null_as_default")]
    pub names: Vec<String>,
    /// `SCMP_ACT_…`.
    pub action: String,
    /// errno (or trace datum).
    pub errno_ret: Option<u32>,
    /// Conditions on arguments, all of which must hold.
    #[serde(default, deserialize_with = "null_as_default")]
    pub args: Vec<SeccompArg>,
}

/// A condition on one argument.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SeccompArg {
    /// Argument number, 0 to 5.
    pub index: u32,
    /// Value, or the mask for `SCMP_CMP_MASKED_EQ`.
    pub value: u64,
    /// Second value, for `SCMP_CMP_MASKED_EQ`.
    #[serde(default)]
    pub value_two: u64,
    /// `SCMP_CMP_…`.
    pub op: String,
}
