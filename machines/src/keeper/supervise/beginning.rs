//! A machine begins: started by a starter of its own, or found running; ready, healthy or not.

use std::os::fd::AsFd;
use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime};

use locule_runtime::sys::clone::pidfd_open;
use locule_runtime::sys::socket;
use locule_runtime::time::rfc3339;
use locule_runtime::{Notice, Status, Store, Watch};

use super::{Init, STOP_TIMEOUT, Supervisor, trouble};
use crate::definition::{BootStart, Ready};
use crate::keeper::health::{Checks, Verdict};
use crate::keeper::record::{EXIT, Ended, Health, Phase};
use crate::keeper::starter::{Answer, Started};
use crate::keeper::{child, exit_of_stranger, group, store, take_terminal};
use crate::{Context, Error, Home, Kind, Machine, Result, boot, life};

/// A machine that runs without a keeper: its init, and the terminal from whoever holds it.
pub(super) fn adopt(home: &Home, machine: &Machine, kept: store::Kept) -> Result<Option<Init>> {
    let Ok(store) = Store::open(home.run()) else { return Ok(None) };
    let Ok(container) = store.load(machine.name()) else { return Ok(None) };
    if !matches!(container.status()?, Status::Running | Status::Paused) {
        // Nobody saw it end; what can still be known is written down, success is never invented.
        if !machine.run().join(EXIT).exists() && container.state().complete {
            let exit = kept.init.as_ref().and_then(exit_of_stranger);
            Ended::new(exit, false, false, rfc3339(SystemTime::now())).write(machine.run())?;
        }
        return Ok(None);
    }
    let (pid, pidfd) = container.init()?;
    let master = match take_terminal(machine.run())? {
        Some(master) => Some(master),
        None => kept.terminal,
    };
    Ok(Some(Init {
        pid,
        pidfd,
        ours: false,
        master,
        cgroup: container.state().cgroup.as_ref().map(|record| record.path.clone()),
        stop_signal: life::stop_signal_of(home, machine, &container),
        since: Instant::now(),
        watch: watch(container.watch()),
        oom: false,
    }))
}

impl Init {
    /// How many lacks of memory were told since the last look.
    pub(super) fn new_kills(&mut self) -> usize {
        let mut count = 0;
        while let Some(watch) = &mut self.watch {
            let told = watch.next(Duration::ZERO);
            self.oom |= watch.kills() > 0;
            match told {
                Ok(Notice::Oom) => count += 1,
                Ok(Notice::Timeout) => break,
                // Nothing more comes from one that ended.
                Ok(Notice::Stopped) => self.watch = None,
                Err(err) => {
                    trouble(&err.to_string());
                    self.watch = None;
                }
            }
        }
        count
    }
}

/// A watch on a machine that has a cgroup, which it may lack for a user.
fn watch(made: Result<Watch>) -> Option<Watch> {
    match made {
        Err(err) if err.kind() == Kind::Unsupported => None,
        other => other.inspect_err(|err| trouble(&err.to_string())).ok(),
    }
}

impl Supervisor<'_> {
    pub(super) fn start(&mut self) -> Result<()> {
        self.phase(Phase::Starting)?;
        let (ours, theirs) = socket::pair().doing(|| "making a socket for the starter")?;
        // The name has the machine's binary sealed before it starts.
        let spawned = child(self.home, "create", self.machine)
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .spawn()
            .doing(|| "running the starter")?;
        self.starter = Some((spawned.id() as i32, ours));
        Ok(())
    }

    pub(super) fn hear_starter(&mut self) -> Result<()> {
        let Some((_, sock)) = self.starter.take() else { return Ok(()) };
        let mut text = vec![0; 64 * 1024];
        let (length, fds) = socket::recv(&sock, &mut text).doing(|| "listening to the starter")?;
        let answer: Answer = match length {
            0 => Err(Error::new(Kind::System, format!("starting {}: the starter died", self.machine.name()))
                .hint("see the kernel's log")),
            length => serde_json::from_slice(&text[..length]).doing(|| "listening to the starter")?,
        };
        match answer {
            Ok(Started { pid, cgroup, stop_signal, terminal }) => {
                let pidfd = pidfd_open(pid).doing(|| format!("opening process {pid}"))?;
                let master = fds.into_iter().next().filter(|_| terminal);
                let container =
                    Store::open(self.home.run()).and_then(|store| store.load(self.machine.name()));
                let watch = watch(container.and_then(|container| container.watch_from_start()));
                let since = Instant::now();
                let init =
                    Init { pid, pidfd, ours: true, master, cgroup, stop_signal, since, watch, oom: false };
                self.begin(init, false)
            }
            Err(err) => self.fail(err),
        }
    }

    /// It could not be started.
    pub(super) fn fail(&mut self, err: Error) -> Result<()> {
        self.record.failure = Some(err.to_string());
        let first = self.report.is_some() || self.record.restarts == 0;
        if first || self.stopping.is_some() {
            if let Some(report) = self.report.take() {
                let text = serde_json::to_vec(&err).doing(|| "telling the error")?;
                let _ = socket::send(&report, &text, &[]);
            } else {
                trouble(&err.to_string());
            }
            self.tell_manager(&format!("STATUS={err}\n"));
            self.done = Some(1);
            return Ok(());
        }
        trouble(&err.to_string());
        self.pause(1)
    }

    /// A machine runs: just started, or found.
    pub(super) fn begin(&mut self, init: Init, adopted: bool) -> Result<()> {
        self.record.init = Some(init.pid);
        self.record.failure = None;
        if !adopted {
            let _ = std::fs::remove_file(self.machine.run().join(EXIT));
        }
        if let Some(manager) = &self.manager {
            manager.store(store::INIT, init.pidfd.as_fd());
            if let Some(master) = &init.master {
                manager.store(store::TERMINAL, master.as_fd());
            }
        }
        self.init = Some(init);
        if self.definition.boot.start == BootStart::Last
            && let Err(err) = boot::remember(self.machine, true)
        {
            trouble(&err.to_string());
        }
        self.introduce();
        self.open_view();
        self.health =
            self.definition.health.as_ref().filter(|health| !health.command.is_empty()).map(Checks::new);
        self.record.health = self.health.as_ref().map(|_| Health::Starting);
        // What a found machine said when it was started, its old keeper has heard.
        self.record.ready = adopted || self.definition.boot.ready == Ready::Started;
        self.phase(Phase::Running)?;
        let event = if adopted { "adopt" } else { "start" };
        self.tell_all(event, &[("pid", self.record.init.unwrap_or_default().to_string())]);
        if let Some(report) = self.report.take() {
            let _ = socket::send(&report, &[0], &[]);
        }
        if self.record.ready {
            self.tell_manager("READY=1\nSTATUS=running\n");
        } else {
            self.tell_manager("STATUS=started, not ready yet\n");
        }
        match self.stopping {
            // Asked while it was started.
            Some(_) => self.stop(),
            None => Ok(()),
        }
    }

    /// Serves the machine's numbers; without that it sees those of its start.
    pub(super) fn open_view(&mut self) {
        let group = self.init.as_ref().and_then(|init| init.cgroup.as_deref()).map(group);
        if let (Some(view), Some(group)) = (&mut self.view, group)
            && let Err(err) = view.begin(&group)
        {
            trouble(&err.to_string());
            self.view = None;
        }
    }

    /// Tells of what was killed for lack of memory since the last look.
    pub(super) fn look_at_memory(&mut self) {
        let kills = self.init.as_mut().map_or(0, Init::new_kills);
        (0..kills).for_each(|_| self.tell_all("oom", &[]));
    }

    pub(super) fn ready(&mut self) -> Result<()> {
        if self.record.ready {
            return Ok(());
        }
        self.record.ready = true;
        self.tell_manager("READY=1\nSTATUS=running\n");
        self.record.write(self.machine.run())
    }

    pub(super) fn judge(&mut self, verdict: Verdict) -> Result<()> {
        let health = match verdict {
            Verdict::Same => return Ok(()),
            Verdict::Healthy => Health::Healthy,
            Verdict::Unhealthy => Health::Unhealthy,
        };
        self.record.health = Some(health);
        self.record.write(self.machine.run())?;
        self.tell_all(if health == Health::Healthy { "healthy" } else { "unhealthy" }, &[]);
        if health == Health::Healthy && self.definition.boot.ready == Ready::Healthy {
            self.ready()?;
        }
        let restarts = self.definition.health.as_ref().is_some_and(|health| health.restart);
        if health == Health::Unhealthy && restarts && self.stopping.is_none() && !self.unhealthy {
            self.unhealthy = true;
            self.tell_manager("STATUS=unhealthy, restarting\n");
            self.ask_to_end(self.definition.init.stop_timeout.map_or(STOP_TIMEOUT, |span| span.0));
        }
        Ok(())
    }
}
