//! Runs a container through `locule-guest` without a virtual machine: the guest is process 1 of a pid namespace, and
//! its channel a socket pair. For tests, and to look at the guest with the host's own tools.
//!
//!     native TREE CGROUP CONTROL
//!
//! TREE is laid out as a machine's: `init`, `root/`, `mounts/`, `containers/`; and `config.json` beside them. What another
//! container brings that is asked for lies in `containers/` already, under its name. CGROUP is an empty
//! cgroup for the guest; CONTROL the path of the control socket to be made. `LOCULE_NETWORK` is a document of an
//! interface to set up, and `LOCULE_LINK` a command that makes it in the guest's network namespace. `LOCULE_NOTIFY` is a
//! directory where somebody listens to the container's notifications.
//! Ends as the workload does; what fails is told on standard error.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio, exit};

use locule_channel::Ending;
use locule_channel::document::HostHello;
use locule_runtime::error::{Context, Error, Result};
use locule_runtime::isolation::notify::Way;
use locule_runtime::sys::process::{block_signals, dup_to, inheritable};
use locule_runtime::sys::socket;
use locule_vmm::session::{Session, Status, Trees};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

const GUEST: &str = r#"
set -e
echo 0 >"$2/cgroup.procs"
eval "${LOCULE_LINK:-:}"
exec unshare --cgroup sh -c '
mount --rbind "$1" "$1"
exec chroot "$1" /init --channel-fd "$2"' guest "$1" "$3"
"#;

fn main() {
    block_signals();
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [tree, cgroup, control] = &words[..] else {
        eprintln!("usage: native TREE CGROUP CONTROL");
        exit(2);
    };
    match run(Path::new(tree), cgroup, Path::new(control)) {
        Ok(Status { ending: Ending::Code(code), out_of_memory }) => {
            tell(out_of_memory);
            exit(code as i32)
        }
        Ok(Status { ending: Ending::Signal(signal), out_of_memory }) => {
            tell(out_of_memory);
            exit(128 + signal as i32)
        }
        Err(err) => {
            eprintln!("native: {:?}: {err}", err.kind());
            exit(125)
        }
    }
}

/// What other containers bring is there.
struct Laid;

impl Trees for Laid {
    fn add(&mut self, _: &str, _: OwnedFd) -> Result<()> {
        Ok(())
    }

    fn remove(&mut self, _: &str) {}
}

fn tell(out_of_memory: bool) {
    if out_of_memory {
        eprintln!("native: out of memory");
    }
}

fn run(tree: &Path, cgroup: &str, control: &Path) -> Result<Status> {
    let config: serde_json::Value =
        std::fs::read(tree.join("config.json"))
            .doing(|| "reading config.json")
            .and_then(|text| serde_json::from_slice(&text).doing(|| "reading config.json"))?;
    let terminal = config.pointer("/process/terminal") == Some(&true.into());
    let listener = {
        let dir = control.parent().unwrap_or(Path::new("/"));
        let dir = std::fs::File::open(dir).doing(|| "opening the control socket's directory")?;
        let name = control.file_name().and_then(|name| name.to_str()).unwrap_or("control");
        socket::listen_at(&dir, name).doing(|| "making the control socket")?
    };
    let stdio = take_stdio()?;
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)
        .doing(|| "making the channel")?;
    let mut guest = spawn(tree, cgroup, theirs)?;
    let mut session = Session::new(ours, stdio, terminal, Some(listener), None)?;
    session.take_others(Laid);
    if let Some(directory) = std::env::var_os("LOCULE_NOTIFY") {
        let directory = std::fs::File::open(directory).doing(|| "opening LOCULE_NOTIFY")?;
        session.pass_notifications(Way::new(directory.into())?);
    }
    let outcome = serve(&mut session, config);
    let _ = session.shut_down();
    let _ = guest.wait();
    outcome
}

fn serve(session: &mut Session, config: serde_json::Value) -> Result<Status> {
    let guest = session.greet(HostHello { hostname: Some("guest".into()), ..HostHello::default() })?;
    for warning in guest.warnings {
        eprintln!("native: {warning}");
    }
    let made = session.create("inner", config)?;
    for warning in made.warnings {
        eprintln!("native: {warning}");
    }
    if let Ok(text) = std::env::var("LOCULE_NETWORK") {
        session.network(serde_json::from_str(&text).doing(|| "reading LOCULE_NETWORK")?)?;
    }
    session.start()?;
    session.run_until_exit()
}

/// The workload's descriptors; of this process's own only standard error stays, for its words.
fn take_stdio() -> Result<[OwnedFd; 3]> {
    let doing = || "taking the standard descriptors";
    let stdin = std::io::stdin().as_fd().try_clone_to_owned().doing(doing)?;
    let stdout = std::io::stdout().as_fd().try_clone_to_owned().doing(doing)?;
    let stderr = std::io::stderr().as_fd().try_clone_to_owned().doing(doing)?;
    let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null").doing(doing)?;
    dup_to(&null, 0).doing(doing)?;
    dup_to(&null, 1).doing(doing)?;
    Ok([stdin, stdout, stderr])
}

fn spawn(tree: &Path, cgroup: &str, channel: OwnedFd) -> Result<Child> {
    let doing = || "starting the guest";
    let channel = inheritable(channel, 500).doing(doing)?;
    let tree = tree.to_str().ok_or_else(|| Error::invalid("the tree's path is not UTF-8"))?;
    Command::new("unshare")
        .args(["--pid", "--fork", "--kill-child", "--mount", "--uts", "--ipc", "--net"])
        .args(["sh", "-c", GUEST, "guest", tree, cgroup, &channel.as_raw_fd().to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .doing(doing)
}
