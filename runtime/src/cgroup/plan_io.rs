//! `resources.blockIO` to writes of `io.*`.
//!
//! Weights go to whichever of the two schedulers the kernel has, rates of one device into one
//! write. It never touches a file.

use std::collections::BTreeMap;

use super::plan::{Limits, OnFailure, Write, out_of_range};
use crate::error::Result;
use crate::spec::BlockIo;

/// Plans weights, then rates.
pub(super) fn plan(block_io: &BlockIo, limits: &mut Limits) -> Result<()> {
    if let Some(weight) = block_io.weight.filter(|weight| *weight != 0) {
        push_weight(limits, "blockIO.weight", "", weight)?;
    }
    for device in &block_io.weight_device {
        let name = device_name("blockIO.weightDevice", device.major, device.minor)?;
        if let Some(weight) = device.weight.filter(|weight| *weight != 0) {
            push_weight(limits, "blockIO.weightDevice", &format!("{name} "), weight)?;
        }
    }

    let mut rates: BTreeMap<(i64, i64), String> = BTreeMap::new();
    for (field, key, devices) in [
        ("throttleReadBpsDevice", "rbps", &block_io.throttle_read_bps_device),
        ("throttleWriteBpsDevice", "wbps", &block_io.throttle_write_bps_device),
        ("throttleReadIOPSDevice", "riops", &block_io.throttle_read_iops_device),
        ("throttleWriteIOPSDevice", "wiops", &block_io.throttle_write_iops_device),
    ] {
        for device in devices {
            let name = device_name(&format!("blockIO.{field}"), device.major, device.minor)?;
            let line = rates.entry((device.major, device.minor)).or_insert(name);
            // On cgroup v1 a rate of 0 removed the limit; io.max refuses the number.
            match device.rate {
                0 => line.push_str(&format!(" {key}=max")),
                rate => line.push_str(&format!(" {key}={rate}")),
            }
        }
    }
    limits.writes.extend(rates.into_values().map(|line| Write::new("io.max", line)));

    let leaf = |weight: Option<u16>| weight.unwrap_or(0) != 0;
    if leaf(block_io.leaf_weight) || block_io.weight_device.iter().any(|device| leaf(device.leaf_weight)) {
        limits.warnings.push("resources.blockIO.leafWeight has no effect on cgroup v2".to_owned());
    }
    Ok(())
}

fn push_weight(limits: &mut Limits, field: &str, device: &str, weight: u16) -> Result<()> {
    if !(10..=1000).contains(&weight) {
        return Err(out_of_range(field, weight, "10 to 1000"));
    }
    // BFQ keeps the range of cgroup v1; io.weight (iocost) has 1 to 10000.
    let instead = OnFailure::Instead("io.weight", format!("{device}{}", io_weight(weight)));
    limits.writes.push(Write::new("io.bfq.weight", format!("{device}{weight}")).on_failure(instead));
    Ok(())
}

/// Linear from 10..1000 to 1..10000, as runc and crun convert it.
fn io_weight(weight: u16) -> u64 {
    1 + (u64::from(weight) - 10) * 9999 / 990
}

fn device_name(field: &str, major: i64, minor: i64) -> Result<String> {
    match (u32::try_from(major), u32::try_from(minor)) {
        (Ok(major), Ok(minor)) => Ok(format!("{major}:{minor}")),
        _ => Err(out_of_range(field, format!("{major}:{minor}"), "a device's major and minor number")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(json: &str) -> Result<Vec<Write>> {
        let mut limits = Limits::default();
        plan(&serde_json::from_str(json).unwrap(), &mut limits).map(|()| limits.writes)
    }

    #[test]
    fn rates_of_a_device_are_one_write() {
        let writes = planned(
            r#"{"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":10},{"major":8,"minor":16,"rate":0}],
                "throttleWriteIOPSDevice":[{"major":8,"minor":0,"rate":20}]}"#,
        )
        .unwrap();
        let lines: Vec<_> = writes.iter().filter_map(Write::text).collect();
        assert_eq!(lines, ["8:0 rbps=10 wiops=20", "8:16 rbps=max"]);
    }

    #[test]
    fn weights_fall_back_to_iocost() {
        let writes =
            planned(r#"{"weight":1000,"weightDevice":[{"major":8,"minor":0,"weight":10}]}"#).unwrap();
        assert_eq!(writes[0].text(), Some("1000"));
        assert_eq!(writes[0].on_failure, OnFailure::Instead("io.weight", "10000".to_owned()));
        assert_eq!(writes[1].on_failure, OnFailure::Instead("io.weight", "8:0 1".to_owned()));
        assert!(planned(r#"{"weight":5}"#).is_err());
        assert!(planned(r#"{"throttleReadBpsDevice":[{"major":-1,"minor":0,"rate":1}]}"#).is_err());
    }
}
