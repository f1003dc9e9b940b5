//! process.json → plan, as `exec --process` takes it.
#![no_main]

mod shared;

use libfuzzer_sys::{fuzz_mutator, fuzz_target};
use locule_runtime::plan::ProcessPlan;
use locule_runtime::spec::Process;

fuzz_mutator!(|data: &mut [u8], size: usize, most: usize, seed: u32| {
    shared::json::mutate(data, size, most, seed)
});

fuzz_target!(|text: &[u8]| {
    let Ok(process) = serde_json::from_slice::<Process>(text) else { return };
    let written = serde_json::to_vec(&process).expect("a process that was read can be written");
    let again: Process = serde_json::from_slice(&written).expect("what was written can be read");
    assert_eq!(planned(&process), planned(&again), "{}", String::from_utf8_lossy(&written));
});

fn planned(process: &Process) -> String {
    let mut warnings = Vec::new();
    match ProcessPlan::new(process, &mut warnings) {
        Ok(plan) => {
            let mut names: Vec<_> =
                plan.env.iter().map(|entry| entry.to_bytes().split(|byte| *byte == b'=').next()).collect();
            names.sort_unstable();
            assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "a name twice: {:?}", plan.env);
            assert!(!plan.args.is_empty() && plan.cwd.is_absolute());
            format!("{plan:?} {warnings:?}")
        }
        Err(err) => {
            shared::refused(&err);
            format!("{err:?}")
        }
    }
}
