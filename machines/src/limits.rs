//! From a definition to the limits of a cgroup.
//!
//! Pure: what cannot be expressed is refused, nothing is written.

use locule_runtime::spec::{Cpu, Memory, Pids, Resources};

use crate::{Definition, Result};

/// The period of `cpu.max`, in microseconds.
const PERIOD: u64 = 100_000;

/// The limits of `definition`; those of its disk are for `disk_device`.
pub fn resources(definition: &Definition, _disk_device: Option<(u32, u32)>) -> Result<Resources> {
    let mut resources = Resources::default();
    let memory = &definition.memory;
    if let Some(limit) = memory.limit {
        let swap = memory.swap.map(|swap| (limit.0 + swap.0) as i64);
        resources.memory = Some(Memory { limit: Some(limit.0 as i64), swap, ..Memory::default() });
    }
    if let Some(limit) = definition.cpu.limit {
        resources.cpu =
            Some(Cpu { quota: Some((limit * PERIOD as f64) as i64), period: Some(PERIOD), ..Cpu::default() });
    }
    if let Some(limit) = definition.pids.limit {
        resources.pids = Some(Pids { limit: Some(limit as i64) });
    }
    Ok(resources)
}
