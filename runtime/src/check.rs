//! `check`: whether a bundle can run on this kernel, found out without touching anything.
//!
//! Plans as `create` does, then looks at what the plan would open. Makes, mounts and writes nothing.

use std::path::Path;

use serde::Serialize;

use crate::cgroup::{self, Purpose};
use crate::error::Context;
use crate::plan::mounts::What;
use crate::plan::namespaces::KINDS;
use crate::plan::{Choices, Plan};
use crate::spec::Spec;
use crate::{Error, Result};

/// What `check` found; no refusals means that the bundle can run here.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Findings {
    /// Reasons why `create` would refuse the bundle.
    pub refusals: Vec<String>,
    /// What it would tolerate and tell.
    pub warnings: Vec<String>,
}

/// Checks the bundle at `bundle`.
pub fn check(bundle: &Path) -> Result<Findings> {
    let bundle =
        std::fs::canonicalize(bundle).doing(|| format!("opening the bundle {}", bundle.display()))?;
    let mut found = Findings::default();
    let planned =
        Spec::load(&bundle).and_then(|spec| Plan::new("check", &bundle, &spec, &Choices::default()));
    let mut plan = match planned {
        Ok(plan) => plan,
        Err(err) => {
            found.refusals.push(err.to_string());
            return Ok(found);
        }
    };
    found.warnings.append(&mut plan.warnings);
    match cgroup::plan(&plan.resources, Purpose::Create) {
        Ok(mut limits) => found.warnings.append(&mut limits.warnings),
        Err(err) => found.refusals.push(format!("linux.resources: {err}")),
    }
    if !plan.rootfs.is_dir() {
        found.refusals.push(format!("root.path: {} is not a directory", plan.rootfs.display()));
    }
    for (word, flag, file) in KINDS {
        if plan.namespaces.has(flag) && !Path::new("/proc/self/ns").join(file).exists() {
            found.refusals.push(format!("linux.namespaces: this kernel has no {word} namespaces"));
        }
    }
    for (_, path) in &plan.namespaces.join {
        if !path.exists() {
            found.refusals.push(format!("linux.namespaces: {} does not exist", path.display()));
        }
    }
    let known = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    for op in &plan.mounts {
        match &op.what {
            What::Bind { source, .. } if !source.exists() => {
                found.refusals.push(format!("mounts: the source {} does not exist", source.display()));
            }
            What::FileSystem { kind, .. } => {
                let kind = kind.to_string_lossy();
                if !known.lines().any(|line| line.rsplit('\t').next() == Some(&*kind)) {
                    found
                        .warnings
                        .push(format!("mounts: {kind} is not loaded: the kernel may have it as a module"));
                }
            }
            _ => {}
        }
    }
    if let Err(err) = hooks_exist(&plan) {
        found.refusals.push(err.to_string());
    }
    Ok(found)
}

fn hooks_exist(plan: &Plan) -> Result<()> {
    let hooks = &plan.hooks;
    // Those of the container's own namespaces are looked up inside, where only `create` can.
    for hook in
        [&hooks.prestart, &hooks.create_runtime, &hooks.poststart, &hooks.poststop].into_iter().flatten()
    {
        if !hook.path.is_file() {
            return Err(Error::invalid(format!("hooks: {} does not exist", hook.path.display())));
        }
    }
    Ok(())
}
