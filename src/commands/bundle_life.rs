//! A machine's life from a bundle that is there already.

use std::path::{Path, PathBuf};
use locule_machines::keeper::starter::{Life, Wishes};
use locule_machines::Machine;
use locule_runtime::process::seal;
use locule_runtime::error::Context;
use locule_runtime::{CreateRequest, Result};
use crate::args::Globals;

pub struct BundleLife { id: String, bundle: PathBuf, globals_manager: locule_runtime::cgroup::Manager }
impl BundleLife {
    pub fn new(globals: &Globals, machine: &Machine) -> Result<BundleLife> {
        Ok(BundleLife { id: machine.name().to_owned(), bundle: machine.run().join("bundle"), globals_manager: globals.cgroup_manager() })
    }
}
impl Life for BundleLife {
    fn prepare(&self, wishes: Wishes) -> Result<(CreateRequest, i32)> {
        let seal = seal::ensure()?;
        let path = self.bundle.join("config.json");
        let text = std::fs::read(Path::new(&self.bundle).join("config.in.json")).doing(|| "reading config.in.json")?;
        let mut spec: locule_runtime::spec::Spec = serde_json::from_slice(&text).doing(|| "reading config")?;
        let mut terminal = false;
        if let Some(process) = &mut spec.process { process.env.extend(wishes.env); terminal = process.terminal; }
        spec.mounts.extend(wishes.mounts);
        if let Some(linux) = &mut spec.linux { linux.cgroups_path = Some(wishes.cgroup); }
        std::fs::write(&path, serde_json::to_vec(&spec).doing(|| "writing")?).doing(|| "writing")?;
        Ok((CreateRequest { id: self.id.clone(), bundle: self.bundle.clone(), pid_file: None, pidfd_socket: None,
            console_socket: wishes.console_socket.filter(|_| terminal), preserved: Vec::new(), no_pivot: false, no_new_keyring: false,
            manager: self.globals_manager, rootless: false, seal }, libc::SIGTERM))
    }
    fn connect(&self, _pid: i32) -> Result<()> { Ok(()) }
    fn clean(&self) -> Result<()> { Ok(()) }
}
