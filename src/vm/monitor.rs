//! The monitor's process: the machine is made, the jail is closed, the guest boots, the session lasts until its end.
//!
//! Runs in the container's init, whose exit is that of the workload.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, SystemTime};

use locule_channel::Ending as Exit;
use locule_channel::document::{HostHello, Time};
use locule_runtime::error::{Context, Result};
use locule_runtime::isolation::control::TREES;
use locule_runtime::isolation::notify::Way;
use locule_runtime::isolation::vsock::NAME;
use locule_runtime::isolation::{Stage, Starter};
use locule_runtime::sys::process;
use locule_runtime::{Error, Kind};
use locule_vmm::filter::{self, Kind as Thread};
use locule_vmm::fs::{Access, Cache, Shares, Tree};
use locule_vmm::session::{Session, Status, Trees, Woke};
use locule_vmm::{Config, Ending, Monitor, Running, net, vsock};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{Parts, jail, network};

/// How long a guest may take to write back and power off, once its workload has ended.
const GOODBYE: Duration = Duration::from_secs(20);
/// The exit code for a machine that ended before its workload told how.
const LOST: i32 = 255;

/// Runs the machine in place of the workload.
pub fn run(parts: Parts, mut stage: Stage) -> ! {
    // Read from a descriptor by the session; the machine's threads must not take one.
    process::block_signals();
    let made = Machine::make(parts, &stage);
    let mut machine = match made.and_then(|machine| stage.ready().map(|()| machine)) {
        Ok(machine) => machine,
        Err(err) => stage.give_up(err),
    };
    // From here on the guest boots while whoever made the container does other things; a failure is for `start` to tell.
    let status = match machine.boot(&stage).and_then(|()| machine.await_start(&stage)) {
        Ok(None) => machine.start(&mut stage),
        Ok(Some(status)) => status,
        Err(err) => fail_at_start(&mut stage, machine.explain(err)),
    };
    machine.end(status)
}

/// The directory of the file server in which the guest finds what other containers bring.
fn shown() -> &'static str {
    TREES.trim_start_matches('/')
}

/// What containers bring that come to the machine later, shown to the guest.
struct Others(Shares);

impl Trees for Others {
    fn add(&mut self, name: &str, tree: OwnedFd) -> Result<()> {
        self.0.add(&format!("{}/{name}", shown()), tree, Access::ReadWrite, Cache::AUTO).map_err(lift)
    }

    fn remove(&mut self, name: &str) {
        self.0.remove(&format!("{}/{name}", shown()));
    }
}

/// A machine that runs, and the session with its guest.
struct Machine {
    running: Running,
    session: Session,
    interfaces: usize,
    stderr: File,
}

impl Machine {
    /// Makes the machine and lets it boot.
    fn make(parts: Parts, stage: &Stage) -> Result<Machine> {
        let doing = || "copying a descriptor";
        let Parts { kvm, size, kernel, agent, null, options } = parts;
        let (ours, theirs) = UnixStream::pair().doing(|| "making the channel to the guest")?;
        let copy = |fd: &OwnedFd| fd.try_clone().doing(doing);
        let mut tree = Tree::new();
        tree.add_cached("init", agent.into(), Access::ReadOnly, Cache::ALWAYS);
        if let Some(modules) = kernel.modules {
            tree.add_cached("modules", modules.into(), Access::ReadOnly, Cache::ALWAYS);
        }
        // What other containers bring that come to the machine later.
        tree.directory(shown());
        let cache = if options.exclusive { Cache::ALWAYS } else { Cache::AUTO };
        tree.add_cached("root", copy(&stage.root)?, Access::ReadWrite, cache);
        for (number, mount) in stage.mounts.iter().enumerate() {
            tree.add(&format!("mounts/{number}"), copy(mount)?, Access::ReadWrite);
        }
        let own = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().doing(doing);
        let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
        let stdio = [own(stdin.as_fd())?, own(stdout.as_fd())?, own(stderr.as_fd())?];
        let console = if options.console { Some(own(stderr.as_fd())?) } else { None };
        let networks = (0..options.interfaces)
            .map(|at| net::Config { tap: None, mac: network::first_mac(at), mtu: network::LARGEST_MTU })
            .collect();
        let sockets = stage.sockets.as_ref().zip(options.vsock);
        let vsock = sockets
            .map(|(sockets, cid)| {
                let (listener, directory) = (copy(&sockets.listener)?, copy(&sockets.directory)?);
                Ok(vsock::Config { cid, directory, name: NAME.into(), listener })
            })
            .transpose()?;
        let monitor = Monitor::new(Config {
            kvm: Some(OwnedFd::from(kvm)),
            memory: size.memory,
            growth: size.growth(),
            vcpus: size.processors,
            kernel: kernel.image,
            initramfs: kernel.initramfs,
            command_line: String::new(),
            tree: Some(tree),
            channel: Some(theirs.into()),
            console,
            serial: None,
            networks,
            disks: Vec::new(),
            vsock,
            identity: options.identity,
            trace: options.trace,
            filter: true,
        })
        .map_err(lift)?;
        let machine_stderr = File::from(own(stderr.as_fd())?);
        let terminal = stage.document.process.as_ref().is_some_and(|process| process.terminal);
        jail::enter()?;
        let running = monitor.start().map_err(lift)?;
        let ending = own(running.ending())?;
        let mut session = Session::new(
            ours.into(),
            stdio,
            terminal,
            stage.control.as_ref().map(copy).transpose()?,
            Some(ending),
        )?;
        if let Some(directory) = &stage.notify {
            session.pass_notifications(Way::new(copy(directory)?)?);
        }
        if let Some(shares) = running.shares() {
            session.take_others(Others(shares));
        }
        let sizer = running.sizer();
        session.on_limits(move |limits| sizer.set(size.memory_for(limits)?).map_err(lift));
        if !options.trace {
            // Whoever is at their other ends shall see when the workload closes its own.
            for number in 0..3 {
                process::dup_to(&null, number).doing(doing)?;
            }
        }
        // This thread is the session from here on.
        filter::enter(Thread::Session).map_err(lift)?;
        Ok(Machine { running, session, interfaces: options.interfaces, stderr: machine_stderr })
    }

    /// Waits for the guest, and has the container made in it.
    fn boot(&mut self, stage: &Stage) -> Result<()> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let guest = self.session.greet(HostHello {
            software: concat!("locule ", env!("CARGO_PKG_VERSION")).into(),
            time: Some(Time { seconds: now.as_secs(), nanoseconds: now.subsec_nanos() }),
            ..HostHello::default()
        })?;
        for warning in guest.warnings {
            self.tell(&format!("warning: the guest says: {warning}"));
        }
        let document =
            serde_json::to_value(&stage.document).doing(|| "encoding the document of the guest")?;
        let made = self.session.create(&stage.id, document)?;
        for warning in made.warnings {
            self.tell(&format!("warning: {warning}"));
        }
        Ok(())
    }

    /// Serves until the start is asked for, or the waiting process was ended.
    fn await_start(&mut self, stage: &Stage) -> Result<Option<Status>> {
        let gate =
            stage.start_awaited().ok_or_else(|| Error::new(Kind::System, "there is no way to be started"))?;
        match self.session.serve_until(gate)? {
            Woke::Ready => Ok(None),
            Woke::Ended(status) => Ok(Some(status)),
        }
    }

    /// Starts the workload and serves it until its end.
    fn start(&mut self, stage: &mut Stage) -> Status {
        let mut starter = match stage.accept() {
            Ok(starter) => starter,
            Err(err) => stage.give_up(err),
        };
        if let Err(err) = self.connect(&mut starter).and_then(|()| self.session.start().map(drop)) {
            let err = self.explain(err);
            starter.failed(err);
        }
        starter.started();
        match self.session.run_until_exit() {
            Ok(status) => status,
            Err(err) => {
                let err = self.explain(err);
                self.tell(&err.to_string());
                process::exit_now(LOST)
            }
        }
    }

    /// Gives the guest the container's network.
    fn connect(&mut self, starter: &mut Starter) -> Result<()> {
        let Some((text, taps)) = starter.networks.take() else { return Ok(()) };
        let documents = network::read(&text)?;
        if documents.len() > self.interfaces {
            return Err(Error::unsupported(format!(
                "the container's network namespace has {} interfaces, and the virtual machine {}",
                documents.len(),
                self.interfaces
            ))
            .hint("set the annotation org.locule.vm.interfaces to their number"));
        }
        for (at, (document, tap)) in documents.into_iter().zip(taps).enumerate() {
            self.running.attach(at, tap).map_err(lift)?;
            self.session.network(network::place(document, at))?;
        }
        Ok(())
    }

    /// Says what is known of a machine that ended by itself.
    fn explain(&self, err: Error) -> Error {
        match self.running.ended() {
            Some(ending) => err.hint(how(&ending, self.running.panic_reason())),
            None => err,
        }
    }

    fn tell(&mut self, text: &str) {
        let _ = writeln!(self.stderr, "locule: {text}");
    }

    /// Lets the guest write back and power off, and ends as the workload did.
    fn end(self, status: Status) -> ! {
        let Machine { running, mut session, stderr, .. } = self;
        drop(stderr);
        // A guest that does not end is ended; nobody waits for more than the process's own word.
        let deadline = std::thread::Builder::new().stack_size(64 << 10).spawn(move || {
            std::thread::sleep(GOODBYE);
            leave(status)
        });
        if deadline.is_ok() && session.shut_down().is_ok() {
            let _: Ending = running.wait();
        }
        leave(status)
    }
}

/// What is told of a machine's end. `reason` is what its kernel says of a panic.
fn how(ending: &Ending, reason: Option<String>) -> String {
    const MESSAGES: &str = "the annotation org.locule.vm.console=stderr shows its messages";
    match (ending, reason) {
        (Ending::Panic, Some(reason)) => format!("its kernel panicked, saying {reason:?}; {MESSAGES}"),
        (Ending::Panic, None) => format!("its kernel panicked; {MESSAGES}"),
        (Ending::TripleFault, _) => format!("a processor met three faults in a row; {MESSAGES}"),
        (Ending::Reset, _) => format!("its kernel reset it; {MESSAGES}"),
        (Ending::PowerOff, _) => format!("its kernel powered it off; {MESSAGES}"),
        (Ending::Failed(error), _) => error.to_string(),
    }
}

/// Ends this process as the workload ended.
fn leave(status: Status) -> ! {
    match status.ending {
        Exit::Code(code) => process::exit_now(i32::try_from(code).unwrap_or(LOST)),
        Exit::Signal(signal) => process::end_by(i32::try_from(signal).unwrap_or(libc::SIGKILL)),
    }
}

/// Waits for whoever starts the container, to tell why it cannot be.
fn fail_at_start(stage: &mut Stage, err: Error) -> ! {
    // Told to end by anybody meanwhile, it does, as one that waits for its start.
    process::reset_signals();
    process::end_on(&[libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT]);
    while let Some(gate) = stage.start_awaited() {
        match poll(&mut [PollFd::new(gate, PollFlags::POLLIN)], PollTimeout::NONE) {
            Err(Errno::EINTR) => {}
            _ => break,
        }
    }
    match stage.accept() {
        Ok(starter) => starter.failed(err),
        Err(_) => process::exit_now(LOST),
    }
}

/// The monitor's error as the library's.
fn lift(err: locule_vmm::Error) -> Error {
    let kind = match err {
        locule_vmm::Error::Refused { .. } => Kind::Unsupported,
        locule_vmm::Error::System { .. } => Kind::System,
    };
    Error::new(kind, err.to_string())
}
