//! For: the verbs in the order of a container's life, and the floors that they are compared with.
//! Owns: one runtime's containers, its `--root` and its bundles.
//! Never: leaves a container behind, even when a verb failed or hung.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::bundle;
use crate::probe::{Probe, Sample};

/// What is measured, in the order of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verb {
    /// `run` of /bin/true up to the end of delete.
    Run,
    /// `create` of a container that will sleep.
    Create,
    /// `start` of it.
    Start,
    /// `state` of it, running.
    State,
    /// `exec` of /bin/true in it.
    Exec,
    /// `kill` with SIGKILL.
    Kill,
    /// `delete` once it is dead.
    Delete,
    /// `features`.
    Features,
}

impl Verb {
    /// Every verb in the order of the report.
    pub const ALL: [Self; 8] = [
        Self::Run,
        Self::Create,
        Self::Start,
        Self::State,
        Self::Exec,
        Self::Kill,
        Self::Delete,
        Self::Features,
    ];

    /// The row's name.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Run => "`run` /bin/true, to the end of delete",
            Self::Create => "`create`",
            Self::Start => "`start`",
            Self::State => "`state`",
            Self::Exec => "`exec` /bin/true",
            Self::Kill => "`kill`",
            Self::Delete => "`delete`",
            Self::Features => "`features`",
        }
    }
}

/// Where samples go: name of the runtime, verb, result.
pub type Record<'a> = dyn FnMut(&str, Verb, Result<Sample, String>) + 'a;

/// The name under which the floors are recorded: the floor program for `run`, the empty one for all other verbs.
pub const FLOOR: &str = "floor";

/// The kernel's own cost.
pub struct Floor {
    floor: PathBuf,
    empty: PathBuf,
    arguments: [String; 4],
}

impl Floor {
    /// `tools` holds the compiled programs.
    pub fn new(tools: &Path, work: &Path) -> Result<Self, String> {
        let mask = work.join("empty");
        std::fs::create_dir_all(&mask).map_err(|e| format!("making {}: {e}", mask.display()))?;
        Ok(Self {
            floor: tools.join("floor"),
            empty: tools.join("empty"),
            arguments: [
                bundle::rootfs(work).to_string_lossy().into_owned(),
                mask.to_string_lossy().into_owned(),
                bundle::cgroup_dir(FLOOR).to_string_lossy().into_owned(),
                "/bin/true".into(),
            ],
        })
    }

    /// One sample of each floor.
    pub fn round(&self, probe: &impl Probe, record: &mut Record<'_>) {
        let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        record(FLOOR, Verb::Run, probe.run(&self.floor, &arguments));
        record(FLOOR, Verb::State, probe.run(&self.empty, &[]));
    }
}

/// One runtime under test.
pub struct Runtime {
    /// Its column.
    pub name: String,
    /// Its binary.
    pub path: PathBuf,
    root: String,
    once: (String, PathBuf),
    life: (String, PathBuf),
    pid_file: PathBuf,
}

impl Runtime {
    /// Makes the bundles and the state root of the runtime at `path`.
    pub fn new(name: &str, path: &Path, work: &Path) -> Result<Self, String> {
        let root = work.join("root").join(name);
        std::fs::create_dir_all(&root).map_err(|e| format!("making {}: {e}", root.display()))?;
        let (once, life) = (format!("{name}-once"), format!("{name}-life"));
        Ok(Self {
            name: name.into(),
            path: path.into(),
            root: root.to_string_lossy().into_owned(),
            once: (once.clone(), bundle::make(work, &once, &["/bin/true"])?),
            life: (life.clone(), bundle::make(work, &life, &["/bin/sleep", "1000"])?),
            pid_file: work.join(format!("{name}.pid")),
        })
    }

    /// Every verb once. When one fails, those that need its effect are left out and the container is removed.
    pub fn round(&self, probe: &impl Probe, record: &mut Record<'_>) {
        let mut verb = |verb: Verb, args: &[&str]| {
            let mut all = vec!["--root", &self.root];
            all.extend(args);
            let result = probe.run(&self.path, &all);
            let well = result.is_ok();
            record(&self.name, verb, result);
            well
        };
        let (id, bundle) = (&self.once.0, self.once.1.to_string_lossy());
        if !verb(Verb::Run, &["run", "--bundle", &bundle, id]) {
            self.force(id);
        }
        verb(Verb::Features, &["features"]);

        let (id, bundle) = (&self.life.0, self.life.1.to_string_lossy());
        let pid_file = self.pid_file.to_string_lossy();
        let lived = verb(Verb::Create, &["create", "--bundle", &bundle, "--pid-file", &pid_file, id])
            && verb(Verb::Start, &["start", id])
            && verb(Verb::State, &["state", id])
            && verb(Verb::Exec, &["exec", id, "/bin/true"])
            && verb(Verb::Kill, &["kill", id, "KILL"])
            && self.wait_for_death()
            && verb(Verb::Delete, &["delete", id]);
        if !lived {
            self.force(id);
        }
    }

    /// Not timed, so polling is harmless here.
    fn wait_for_death(&self) -> bool {
        let Ok(pid) = std::fs::read_to_string(&self.pid_file) else {
            return false;
        };
        let stat = PathBuf::from(format!("/proc/{}/stat", pid.trim()));
        let deadline = Instant::now() + Duration::from_secs(10);
        while Instant::now() < deadline {
            match std::fs::read_to_string(&stat) {
                Ok(text) if !text.contains(") Z ") && !text.contains(") X ") => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                _ => return true,
            }
        }
        false
    }

    fn force(&self, id: &str) {
        bundle::kill(id);
        let _ = std::process::Command::new(&self.path)
            .args(["--root", &self.root, "delete", "--force", id])
            .output();
        let _ = std::fs::remove_dir_all(Path::new(&self.root).join(id));
    }
}
