//! What comes before a start: the root file system mounted, the bundle written.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use locule_runtime::process::seal::Seal;
use locule_runtime::rootfs::Root;
use locule_runtime::spec::Mount;
use locule_runtime::spec::StringMap;
use locule_runtime::{CreateRequest, Store, cgroup, signals};

use super::{VIEW, clean};
use crate::bundle::{self, Init, Input, Names, Wiring};
use crate::definition::Isolation;
use crate::keeper::record::EXIT;
use crate::state::State;
use crate::{Context, Definition, Error, Home, Kind, Machine, Result, file, root, visible, wiring};

/// What the keeper wants of the container to be.
#[derive(Debug, Default)]
pub struct Wishes {
    /// Its cgroup, below the cgroup2 mount.
    pub cgroup: String,
    /// Where the master of its terminal goes, should it have one.
    pub console_socket: Option<PathBuf>,
    /// Mounts beside its own.
    pub mounts: Vec<Mount>,
    /// Environment beside its own, as `KEY=value`.
    pub env: Vec<String>,
}

/// A machine that is ready to be created as a container.
#[derive(Debug)]
pub struct Prepared {
    /// For `locule_runtime`.
    pub request: CreateRequest,
    /// Its first process.
    pub init: Init,
    /// The number of the signal that asks it to end.
    pub stop_signal: i32,
}

/// Mounts the root file system and writes the bundle. The caller holds the lock; `clean` undoes it.
pub fn prepare(
    home: &Home,
    machine: &Machine,
    definition: &Definition,
    wishes: Wishes,
    seal: Seal,
) -> Result<Prepared> {
    let state = machine.state()?;
    if definition.disabled {
        return Err(Error::new(Kind::State, format!("machine {} is disabled", machine.name()))
            .hint(format!("locule set {} disabled=off", machine.name())));
    }
    clean(home, machine)?;
    file::remove(&machine.run().join(EXIT))?;
    Store::create_root(home.run(), false)?;
    let group = Path::new(cgroup::MOUNT).join(wishes.cgroup.trim_start_matches('/'));
    let prepared = bundle_of(home, machine, definition, &state, wishes, seal);
    prepared.inspect_err(|_| {
        let _ = clean(home, machine);
        // Made for its pressure to be seen; an empty one only can go.
        let _ = fs::remove_dir(group);
    })
}

fn bundle_of(
    home: &Home,
    machine: &Machine,
    definition: &Definition,
    state: &State,
    wishes: Wishes,
    seal: Seal,
) -> Result<Prepared> {
    let image = root::config(home, machine)?;
    let map = if definition.privileged { None } else { state.map };
    root::mount(home, machine, definition, map)?;
    let place = root::place(machine);
    let opened =
        fs::File::open(&place).map(OwnedFd::from).doing(|| format!("opening {}", place.display()))?;
    let bundle = machine.run().join("bundle");
    write_host(&bundle.join("host"), state)?;
    let hostname = definition.hostname.as_deref().unwrap_or(machine.name());
    locule_runtime::state::write_atomic(&bundle.join("hostname"), format!("{hostname}\n").as_bytes())?;
    let names = match bundle::wiring(definition)? {
        Wiring::Own => wiring::names(home, machine, definition)?,
        Wiring::Host => Names { hosts: None, resolv: Some("/etc/resolv.conf".into()) },
    };
    let group = Path::new(cgroup::MOUNT).join(wishes.cgroup.trim_start_matches('/'));
    let mut extra = match definition.isolation {
        Isolation::Namespaces => visible::prepare(&machine.run().join(VIEW), definition, &group)?,
        // A kernel of its own has numbers of its own.
        Isolation::Vm => Vec::new(),
    };
    extra.extend(wishes.mounts);
    let input = Input {
        name: machine.name(),
        definition,
        image: &image,
        state,
        root: &Root::new(opened),
        rootfs: &place,
        bundle: &bundle,
        cgroup: &wishes.cgroup,
        resources: crate::limits::resources(definition, crate::limits::disk_of(&place, machine.dir())?)?,
        names,
        extra,
    };
    let (mut spec, init) = bundle::build(&input)?;
    let stop_signal = signals::parse(&init.stop_signal)
        .map_err(|err| err.context(format_args!("machine {}: init.stop-signal", machine.name())))?;
    if let Some(process) = &mut spec.process {
        process.env.extend(wishes.env);
    }
    let text = serde_json::to_vec(&spec).doing(|| "writing the bundle's document")?;
    locule_runtime::state::write_atomic(&bundle.join("config.json"), &text)?;
    let request = CreateRequest {
        id: machine.name().to_owned(),
        bundle,
        pid_file: None,
        pidfd_socket: None,
        console_socket: wishes.console_socket.filter(|_| init.terminal),
        preserved: Vec::new(),
        no_pivot: false,
        no_new_keyring: false,
        manager: cgroup::Manager::Cgroupfs,
        rootless: false,
        isolation: Some(match definition.isolation {
            Isolation::Namespaces => locule_runtime::Isolation::Namespaces,
            Isolation::Vm => locule_runtime::Isolation::Vm,
        }),
        machine: StringMap::new(),
        seal,
    };
    Ok(Prepared { request, init, stop_signal })
}

/// What a system finds in /run/host (systemd.io, container interface).
fn write_host(dir: &Path, state: &State) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    // The second is where the keeper's socket is bound.
    for name in ["incoming", "notify.d"] {
        fs::create_dir_all(dir.join(name)).doing(|| format!("making {}", dir.display()))?;
    }
    let readable = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode))
            .doing(|| format!("making {}", path.display()))
    };
    readable(dir, 0o755)?;
    let release =
        fs::read("/etc/os-release").or_else(|_| fs::read("/usr/lib/os-release")).unwrap_or_default();
    let files: [(&str, &[u8]); 3] = [
        ("container-manager", b"locule\n"),
        ("container-uuid", state.uuid.as_bytes()),
        ("os-release", &release),
    ];
    for (name, bytes) in files {
        let path = dir.join(name);
        locule_runtime::state::write_atomic(&path, bytes)?;
        readable(&path, 0o644)?;
    }
    Ok(())
}
