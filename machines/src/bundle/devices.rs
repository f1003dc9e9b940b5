//! Device nodes of the host in a machine, and the rules that let it use them.
//!
//! Owns what `nesting` adds. What is no device of the host is refused.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use locule_runtime::spec::{Device, DeviceRule, Resources};
use nix::sys::stat::{major, minor};

use crate::definition::Device as Wanted;
use crate::{Context, Definition, Error, Result};

/// What nested engines use: overlays in user space, tunnels.
const NESTING: [&str; 2] = ["/dev/fuse", "/dev/net/tun"];

/// The nodes; their rules are added to `resources`.
pub fn choose(definition: &Definition, resources: &mut Resources) -> Result<Vec<Device>> {
    if definition.privileged {
        resources.devices.push(DeviceRule {
            allow: true,
            access: Some("rwm".into()),
            ..DeviceRule::default()
        });
    } else {
        resources.devices.push(DeviceRule {
            allow: false,
            access: Some("rwm".into()),
            ..DeviceRule::default()
        });
    }
    let mut nodes = Vec::new();
    if definition.nesting {
        for path in NESTING.iter().filter(|path| Path::new(path).exists()) {
            let wanted = Wanted { path: (*path).to_owned(), target: None, access: Some("rwm".into()) };
            add(&wanted, &mut nodes, resources)?;
        }
    }
    for wanted in &definition.devices {
        add(wanted, &mut nodes, resources)
            .map_err(|err| err.context(format_args!("device {}", wanted.path)))?;
    }
    Ok(nodes)
}

fn add(wanted: &Wanted, nodes: &mut Vec<Device>, resources: &mut Resources) -> Result<()> {
    let meta = std::fs::metadata(&wanted.path).doing(|| format!("looking at {}", wanted.path))?;
    let kind = match meta.file_type() {
        kind if kind.is_char_device() => "c",
        kind if kind.is_block_device() => "b",
        _ => return Err(Error::invalid("it is not a device node")),
    };
    let access = wanted.access.clone().unwrap_or_else(|| "rw".into());
    if access.is_empty() || access.chars().any(|c| !"rwm".contains(c)) {
        return Err(Error::invalid(format!("the access {access:?} is not made of r, w and m")));
    }
    let (major, minor) = (major(meta.rdev()) as i64, minor(meta.rdev()) as i64);
    let path = wanted.target.clone().unwrap_or_else(|| wanted.path.clone());
    nodes.retain(|node: &Device| node.path != Path::new(&path));
    nodes.push(Device {
        kind: kind.into(),
        path: path.into(),
        major: Some(major),
        minor: Some(minor),
        file_mode: Some(meta.mode() & 0o777),
        uid: Some(0),
        gid: Some(0),
    });
    resources.devices.push(DeviceRule {
        allow: true,
        kind: Some(kind.into()),
        major: Some(major),
        minor: Some(minor),
        access: Some(access),
    });
    Ok(())
}
