//! The monitor's process: the machine is made, the jail is closed, the guest boots, the session lasts until its end.
//!
//! Runs in the container's init, whose exit is that of the workload.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use locule_runtime::error::{Context, Result};
use locule_runtime::isolation::Stage;
use locule_runtime::sys::process;
use locule_runtime::{Error, Kind};
use locule_vmm::fs::{Access, Cache, Tree};
use locule_vmm::{Config, Monitor, Running, net};

use super::{Parts, jail, network};

/// Runs the machine in place of the workload.
pub fn run(parts: Parts, stage: Stage) -> ! {
    // Read from a descriptor by the session; the machine's threads must not take one.
    process::block_signals();
    let (running, channel) = match start(parts, &stage) {
        Ok(started) => started,
        Err(err) => stage.give_up(err),
    };
    drop((running, channel));
    stage.give_up(Error::unsupported("this build has no session with the guest"))
}

/// Makes the machine and lets it boot; returns it and the session's end of the channel.
fn start(parts: Parts, stage: &Stage) -> Result<(Running, UnixStream)> {
    let Parts { kvm, size, kernel, agent, options } = parts;
    let (ours, theirs) = UnixStream::pair().doing(|| "making the channel to the guest")?;
    let copy = |fd: &OwnedFd| fd.try_clone().doing(|| "copying a descriptor");
    let mut tree = Tree::new();
    tree.add_cached("init", agent.into(), Access::ReadOnly, Cache::ALWAYS);
    if let Some(modules) = kernel.modules {
        tree.add_cached("modules", modules.into(), Access::ReadOnly, Cache::ALWAYS);
    }
    tree.add("root", copy(&stage.root)?, Access::ReadWrite);
    for (number, mount) in stage.mounts.iter().enumerate() {
        tree.add(&format!("mounts/{number}"), copy(mount)?, Access::ReadWrite);
    }
    let console = if options.console {
        Some(std::io::stderr().as_fd().try_clone_to_owned().doing(|| "copying standard error")?)
    } else {
        None
    };
    let networks = (0..options.interfaces)
        .map(|at| net::Config { tap: None, mac: network::first_mac(at), mtu: 1500 })
        .collect();
    let monitor = Monitor::new(Config {
        kvm: Some(OwnedFd::from(kvm)),
        memory: size.memory,
        vcpus: size.processors,
        kernel: kernel.image,
        initramfs: None::<File>,
        command_line: String::new(),
        tree: Some(tree),
        channel: Some(theirs.into()),
        console,
        serial: None,
        networks,
        disks: Vec::new(),
        vsock: None,
        identity: options.identity,
        trace: options.trace,
        filter: true,
    })
    .map_err(lift)?;
    jail::enter()?;
    Ok((monitor.start().map_err(lift)?, ours))
}

/// The monitor's error as the library's.
fn lift(err: locule_vmm::Error) -> Error {
    let kind = match err {
        locule_vmm::Error::Refused { .. } => Kind::Unsupported,
        _ => Kind::System,
    };
    Error::new(kind, err.to_string())
}
