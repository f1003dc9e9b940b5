//! config.json → spec → plan, limits and place: refusals are errors, and what is accepted is stable.
#![no_main]

mod shared;

use std::path::{Path, PathBuf};

use libfuzzer_sys::{fuzz_mutator, fuzz_target};
use locule_runtime::cgroup::{self, Extra, Location, Manager, Purpose, Request};
use locule_runtime::plan::{Choices, Plan};
use locule_runtime::spec::Spec;

const BUNDLE: &str = "/bundle";

fuzz_mutator!(|data: &mut [u8], size: usize, most: usize, seed: u32| {
    shared::json::mutate(data, size, most, seed)
});

fuzz_target!(|text: &[u8]| {
    let spec = match Spec::parse(text) {
        Ok(spec) => spec,
        Err(err) => return shared::refused(&err),
    };
    // What is written again reads the same: the copy in the state directory is what later calls go by.
    let written = serde_json::to_vec(&spec).expect("a document that was read can be written");
    let again = Spec::parse(&written).expect("what was written can be read");
    assert_eq!(written, serde_json::to_vec(&again).expect("and written again"));
    let (planned, replanned) = (everything(&spec), everything(&again));
    assert_eq!(planned, replanned, "{}", String::from_utf8_lossy(&written));
});

/// All that is decided before anything is touched, as text to compare.
fn everything(spec: &Spec) -> String {
    let choices = Choices::default();
    let plan = match Plan::new("fuzzed", Path::new(BUNDLE), spec, &choices) {
        Ok(plan) => plan,
        Err(err) => {
            shared::refused(&err);
            return format!("{err:?}");
        }
    };
    sane(&plan);
    let mut out = format!("{plan:?}");
    for purpose in [Purpose::Create, Purpose::Update] {
        out += &said(cgroup::plan(&plan.resources, purpose));
    }
    out += &said(Extra::new(&spec.annotations));
    for manager in [Manager::Cgroupfs, Manager::Systemd { user: false }] {
        let request =
            Request { id: "fuzzed", cgroups_path: plan.cgroups_path.as_deref(), manager, rootless: false };
        let place = Location::resolve(&request, || Ok(PathBuf::from("/own/cgroup")));
        if let Ok(place) = &place {
            let inside = place.path.components().all(|part| !matches!(part, std::path::Component::ParentDir));
            assert!(place.path.is_absolute() && inside && place.path != Path::new("/"), "{place:?}");
        }
        out += &said(place);
    }
    out
}

fn said<T: std::fmt::Debug>(result: locule_runtime::Result<T>) -> String {
    if let Err(err) = &result {
        shared::refused(err);
    }
    format!("{result:?}")
}

/// What later steps rely on without looking again.
fn sane(plan: &Plan) {
    assert!(!plan.process.args.is_empty());
    assert!(plan.process.cwd.is_absolute());
    assert!(plan.process.user.uid != u32::MAX && plan.process.user.gid != u32::MAX);
    if let Some(filter) = &plan.seccomp {
        assert!(filter.program.len() <= libc::BPF_MAXINSNS as usize);
    }
    for sysctl in &plan.sysctls {
        let text = format!("{sysctl:?}");
        assert!(!text.contains("/../"), "{text}");
    }
}
