//! Pods: containers that live in the machine of another one.
//!
//! A container that joins namespaces of a container with a machine is made in that machine: there those namespaces are, and
//! nowhere else. So a pod of Kubernetes or Podman is one machine, with no word about it in any document. On the host a process
//! without rights stands for the container's init (`stand`); it brings the root file system and the sources of the mounts to
//! the machine's monitor as descriptors.

use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::statvfs::{FsFlags, fstatvfs};

use super::control::{Answer, Ask, Connection, Newcomer, TREES};
use super::split::{MOUNTS, ROOT, is_of_host};
use super::stand::{Heard, Stand};
use super::{Monitor, Stage};
use crate::container::Container;
use crate::contract;
use crate::error::{Context, Error, Kind, Result};
use crate::plan::Plan;
use crate::plan::mounts::What;
use crate::plan::namespaces::{KINDS, MOUNT, NETWORK, USER};
use crate::process::channel::Message;
use crate::process::create::DEATH;
use crate::report::Status;
use crate::rootfs::clean;
use crate::spec::Spec;
use crate::state::Store;
use crate::sys::fs::mount_id;
use crate::sys::{caps, process, socket};

/// How long a machine may take to make a container, its own start included.
const PATIENCE: Duration = Duration::from_secs(300);
/// The document and the standard descriptors, which come before the trees.
const FIRST: usize = 4;

/// The machine of another container.
#[derive(Debug)]
pub struct Place {
    /// The id of the container that has it.
    pub machine: String,
    /// What makes the new container's init stand for the one inside.
    pub monitor: Box<dyn Monitor>,
}

/// The machine that the container planned is to live in; `None` where it joins nothing of a container that has one.
///
/// # Errors
/// Where it joins only a part of what must go together, and where the machine does not run.
pub(super) fn place_of(store: &Store, plan: &Plan) -> Result<Option<Place>> {
    let joined: Vec<(u64, i32)> = plan
        .namespaces
        .join
        .iter()
        .filter(|(flag, _)| *flag != USER)
        .filter_map(|(flag, path)| Some((*flag, process_of(path)?)))
        .collect();
    if joined.is_empty() {
        return Ok(None);
    }
    let owners = owners(store, &joined)?;
    let Some(machine) = owners.iter().map(|(_, owner)| machine_of(owner)).next() else { return Ok(None) };
    let refused = |text: String| Err(Error::unsupported(format!("linux.namespaces: {text}")));
    if owners.iter().any(|(_, owner)| machine_of(owner) != machine) {
        return refused("it joins namespaces in two virtual machines: join those of one".into());
    }
    let host = store.load(machine)?;
    if !matches!(host.status()?, Status::Created | Status::Running) {
        return Err(
            contract::not_running().context(format_args!("joining the virtual machine of {machine:?}"))
        );
    }
    let (pid, _) = host.init()?;
    let mut joins = Vec::new();
    for (flag, path) in &plan.namespaces.join {
        let word = KINDS.iter().find(|(_, kind, _)| kind == flag).map_or("", |(word, ..)| word);
        match owners.iter().find(|(kind, _)| kind == flag) {
            _ if matches!(*flag, USER | NETWORK) => {}
            Some((_, owner)) if *flag != MOUNT => joins.push((word.to_owned(), owner.id().to_owned())),
            _ => {
                return refused(format!(
                    "{} is not the {word} namespace of one in the virtual machine of {machine:?}, whose others it joins",
                    path.display()
                ));
            }
        }
    }
    let same = |kind: u64, name: &str| {
        let theirs = identity(Path::new(&format!("/proc/{pid}/ns/{name}")));
        let own = match plan.namespaces.join.iter().find(|(flag, _)| *flag == kind) {
            Some((_, path)) => identity(path),
            None if plan.namespaces.makes(kind) => None,
            None => identity(Path::new(&format!("/proc/self/ns/{name}"))),
        };
        own.is_some() && own == theirs
    };
    if !same(NETWORK, "net") {
        return refused(format!(
            "a container in the virtual machine of {machine:?} has its network: join its network namespace"
        ));
    }
    if !same(USER, "user") {
        return refused(format!(
            "a container in the virtual machine of {machine:?} has its user namespace: join that, with the same maps"
        ));
    }
    let rootfs = clean(&plan.rootfs);
    let brought = plan.mounts.iter().filter(|op| is_of_host(op, &rootfs));
    let brought = brought.map(|op| Brought {
        mapped: op.idmap.is_some(),
        whole: matches!(op.what, What::Bind { recursive: true, .. }),
    });
    let brought = std::iter::once(Brought { mapped: false, whole: true }).chain(brought).collect();
    let connection = Connection::open(host.entry())?;
    let monitor = Box::new(StandIn { connection, joins, brought });
    Ok(Some(Place { machine: machine.to_owned(), monitor }))
}

/// The process in `/proc/PID/ns/KIND`.
fn process_of(path: &Path) -> Option<i32> {
    let mut parts = path.strip_prefix("/proc").ok()?.components();
    let pid = parts.next()?.as_os_str().to_str()?.parse().ok()?;
    parts.next().filter(|part| part.as_os_str() == "ns").map(|_| pid)
}

/// Of the joined namespaces those whose process is the init of a container with a machine.
fn owners(store: &Store, joined: &[(u64, i32)]) -> Result<Vec<(u64, Container)>> {
    let mut owners = Vec::new();
    for id in store.ids()? {
        // One that is being made or removed has no namespaces to be joined.
        let Ok(container) = store.load(&id) else { continue };
        let Some(init) = container.state().init.as_ref().filter(|_| container.is_vm()) else { continue };
        for (flag, _) in joined.iter().filter(|(_, pid)| *pid == init.pid) {
            if init.alive() {
                owners.push((*flag, store.load(&id)?));
            }
        }
    }
    Ok(owners)
}

/// The id of the container that has the machine of `container`.
fn machine_of(container: &Container) -> &str {
    container.state().machine.as_deref().unwrap_or(container.id())
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()))
}

/// Waits until nothing is left of a container that has ended in its machine, which holds what it brought until then.
pub(super) fn await_absence(container: &Container) -> Result<()> {
    let Some(machine) = &container.state().machine else { return Ok(()) };
    // Without its monitor that machine is gone, and everything in it.
    let Ok(monitor) = container.entry().sibling(machine).and_then(Connection::open) else { return Ok(()) };
    let ask = Ask::Gone(container.id().to_owned());
    if monitor.ask(&ask, &[]).is_err() || monitor.has_answered(DEATH)? {
        return Ok(());
    }
    Err(Error::new(Kind::System, format!("container {:?} does not vanish from its machine", container.id()))
        .hint(format!("delete {machine:?}, whose machine it is, or try again")))
}

/// The init, on the host, of a container in another's machine.
#[derive(Debug)]
struct StandIn {
    connection: Connection,
    joins: Vec<(String, String)>,
    /// The root file system and the sources of mounts.
    brought: Vec<Brought>,
}

/// What the mount of a tree makes of its files.
#[derive(Debug, Clone, Copy)]
struct Brought {
    /// Their ids are mapped.
    mapped: bool,
    /// What is mounted below comes along.
    whole: bool,
}

impl Monitor for StandIn {
    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        vec![self.connection.as_fd()]
    }

    fn wants_sockets(&self) -> bool {
        false
    }

    fn run(self: Box<Self>, mut stage: Stage) -> ! {
        process::block_signals();
        let terminal = stage.document.process.as_ref().is_some_and(|process| process.terminal);
        let made = self.make(&stage, terminal).and_then(|connection| Stand::new(connection, terminal));
        let stand = match made.and_then(|stand| stage.ready().map(|()| stand)) {
            Ok(stand) => stand,
            Err(err) => stage.give_up(err),
        };
        let _ = stand.close_others(stage.start_awaited().as_slice());
        serve(&stand, &mut stage)
    }
}

impl StandIn {
    /// Has the container made inside, with this process's standard descriptors.
    fn make(self, stage: &Stage, terminal: bool) -> Result<Connection> {
        give_up_rights()?;
        let StandIn { connection, joins, brought } = self;
        let trees = std::iter::once(&stage.root).chain(&stage.mounts).zip(brought);
        let trees = trees.map(|(tree, brought)| name(tree, brought)).collect::<Result<Vec<_>>>()?;
        if trees.len() + FIRST > socket::MOST_FDS {
            return Err(Error::unsupported(format!(
                "mounts: {} sources are more than can be brought to a virtual machine that runs: at most {}",
                stage.mounts.len(),
                socket::MOST_FDS - FIRST - 1
            )));
        }
        let document = written(&placed(&stage.document, &trees))?;
        let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
        let mut fds =
            vec![document.as_fd(), stdin.as_fd(), stdout.as_fd(), stderr.as_fd(), stage.root.as_fd()];
        fds.extend(stage.mounts.iter().map(AsFd::as_fd));
        let newcomer = Newcomer { id: stage.id.clone(), terminal, trees, joins };
        connection.ask(&Ask::Create(Box::new(newcomer)), &fds)?;
        if !connection.has_answered(PATIENCE)? {
            return Err(Error::new(Kind::System, "the virtual machine that it joins does not answer")
                .hint("its first container must be started"));
        }
        match connection.answered()? {
            Some(Answer::Created(warnings)) => {
                for warning in warnings {
                    stage.tell(&Message::Warning(warning));
                }
                Ok(connection)
            }
            Some(Answer::Failed(err)) => Err(err),
            Some(other) => Err(other.out_of_place()),
            None => Err(contract::not_running().context("the virtual machine that it joins")),
        }
    }
}

/// From the creation to the end of the container inside.
fn serve(stand: &Stand, stage: &mut Stage) -> ! {
    loop {
        if let Heard::Ready = stand.wait(stage.start_awaited()) {
            break;
        }
    }
    let starter = match stage.accept() {
        Ok(starter) => starter,
        Err(err) => stage.give_up(err),
    };
    if let Err(err) = stand.ask(&Ask::Start) {
        starter.failed(err);
    }
    match stand.wait(None) {
        Heard::Answer(Answer::Started) => starter.started(),
        Heard::Answer(Answer::Failed(err)) => starter.failed(err),
        other => starter
            .failed(Error::new(Kind::System, format!("unexpected word of the machine's monitor: {other:?}"))),
    }
    loop {
        stand.wait(None);
    }
}

/// What is left is to pass things on.
fn give_up_rights() -> Result<()> {
    let doing = || "giving up the rights of the process that stands for the container";
    let _ = caps::ambient_clear();
    caps::set(caps::Sets { effective: 0, permitted: 0, inheritable: 0 }).doing(doing)?;
    process::set_no_new_privs().doing(doing)?;
    process::set_undumpable().doing(doing)
}

/// What a tree is called in the machine: two descriptors of one file have one name, so that a volume of two containers is
/// one there too. One whose mount maps ids is its container's alone; what may only be read, and what comes without the
/// mounts below it, is kept apart.
fn name(tree: &OwnedFd, brought: Brought) -> Result<String> {
    let doing = || "looking at what the container brings";
    let stat = nix::sys::stat::fstat(tree).doing(doing)?;
    let mut name = format!("{:x}-{:x}", stat.st_dev, stat.st_ino);
    if brought.mapped {
        name += &format!(".{:x}", mount_id(tree).doing(doing)?);
    }
    if fstatvfs(tree).doing(doing)?.flags().contains(FsFlags::ST_RDONLY) {
        name += ".ro";
    }
    if !brought.whole {
        name += ".alone";
    }
    Ok(name)
}

/// The document, with the names of its trees in the machine in place of [`ROOT`] and the numbers below [`MOUNTS`].
fn placed(document: &Spec, trees: &[String]) -> Spec {
    let mut document = document.clone();
    let place = |path: &Path| -> Option<PathBuf> {
        let tree = |number: usize| trees.get(number).map(|name| Path::new(TREES).join(name));
        if let Ok(inside) = path.strip_prefix(ROOT) {
            let root = tree(0)?;
            return Some(if inside.as_os_str().is_empty() { root } else { root.join(inside) });
        }
        tree(path.strip_prefix(MOUNTS).ok()?.to_str()?.parse::<usize>().ok()? + 1)
    };
    if let Some(root) = &mut document.root {
        root.path = place(&root.path).unwrap_or_default();
    }
    for mount in document.mounts.iter_mut().filter(|mount| mount.kind.as_deref() == Some("bind")) {
        mount.source = mount.source.as_deref().and_then(place);
    }
    document
}

/// A file with the document in it.
fn written(document: &Spec) -> Result<File> {
    let doing = || "writing the document of the container inside";
    let mut file = File::from(memfd_create(c"document", MFdFlags::MFD_CLOEXEC).doing(doing)?);
    serde_json::to_writer(&mut file, document).doing(doing)?;
    file.flush().and_then(|()| file.rewind()).doing(doing)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_named_by_its_namespaces_alone() {
        let of = |path: &str| process_of(Path::new(path));
        assert_eq!((of("/proc/42/ns/ipc"), of("/proc/42/ns")), (Some(42), Some(42)));
        for path in [
            "/run/netns/a",
            "/proc/self/ns/ipc",
            "/proc/42/task/43/ns/ipc",
            "/proc/42",
            "/proc",
            "proc/42/ns/ipc",
        ] {
            assert_eq!(of(path), None, "{path}");
        }
    }

    #[test]
    fn a_document_names_what_the_container_brings() {
        let document = serde_json::json!({
            "ociVersion": "1.2.0", "root": {"path": ROOT}, "process": {"args": ["sh"], "cwd": "/"},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/own", "type": "bind", "source": "/root/etc", "options": ["bind"]},
                {"destination": "/data", "type": "bind", "source": "/mounts/1", "options": ["rbind"]},
                {"destination": "/etc/hosts", "type": "bind", "source": "/mounts/0", "options": ["bind"]},
            ],
        });
        let spec = Spec::parse(document.to_string().as_bytes()).unwrap();
        let placed = placed(&spec, &["r", "a", "b.ro"].map(str::to_owned));
        assert_eq!(placed.root.unwrap().path, Path::new("/containers/r"));
        let sources: Vec<_> = placed.mounts.iter().map(|mount| mount.source.clone().unwrap()).collect();
        let wanted = ["proc", "/containers/r/etc", "/containers/b.ro", "/containers/a"];
        assert_eq!(sources, wanted.map(PathBuf::from));
    }

    #[test]
    fn one_file_has_one_name_however_it_was_opened() {
        let of = |path: &str, mapped, whole| {
            name(&OwnedFd::from(File::open(path).unwrap()), Brought { mapped, whole }).unwrap()
        };
        let a = of("/", false, true);
        assert_eq!(a, of("/", false, true));
        assert_ne!(a, of("/", true, true));
        assert_ne!(a, of("/", false, false));
        assert_ne!(a, of("/proc", false, true));
        assert!(a.bytes().all(|byte| byte != b'/') && a.len() < 100);
    }
}
