//! The machine's containers, each called by the session of its own process.
//!
//! Owns what process 1 knows of each: its name, the runtime's handle, the watch on its memory. Never waits; what may take
//! its time is a worker's.

use std::path::Path;
use std::time::Duration;

use locule_channel::{Frame, INIT, Link};
use locule_runtime::cgroup::{Event, Watch};
use locule_runtime::error::Result;
use locule_runtime::{Container, Error, Kind, Store};

use super::Agent;
use crate::{BUNDLE, STATE};

/// A container, from its Create on.
#[derive(Debug)]
pub struct Served {
    /// The session of its own process.
    pub number: u32,
    /// Its id.
    pub id: String,
    /// The container itself, once it was made.
    pub container: Option<Container>,
    /// Of its memory, as long as something runs in it.
    pub watch: Option<Watch>,
    /// How often the kernel has killed in it.
    pub kills: u64,
    /// A worker removes it: for everybody else it is gone already.
    pub removing: bool,
}

impl Served {
    /// One that a worker is to make.
    pub fn new(number: u32, id: String) -> Served {
        Served { number, id, container: None, watch: None, kills: 0, removing: false }
    }

    /// Takes hold of what the worker made.
    fn attach(&mut self) {
        match Store::open(Path::new(STATE)).and_then(|store| store.load(&self.id)) {
            Ok(container) => {
                self.watch = container.cgroup().ok().flatten().and_then(|cgroup| cgroup.watch().ok());
                self.container = Some(container);
            }
            Err(err) => eprintln!("locule-guest: {err}"),
        }
    }

    /// Tells the host of what the kernel killed in it for lack of memory.
    fn look_at_memory(&mut self, link: &mut Link) {
        while let Some(watch) = &mut self.watch {
            match watch.next(Duration::ZERO) {
                Ok(Event::Oom(more)) => {
                    self.kills += more;
                    let _ = link.send(&Frame::OutOfMemory { container: self.number, kills: self.kills });
                }
                Ok(Event::TimedOut | Event::Beside) => return,
                // Without a process nothing is killed any more.
                Ok(Event::Empty) | Err(_) => self.watch = None,
            }
        }
    }
}

/// The bundle directory of a container.
pub fn bundle(number: u32) -> String {
    if number == INIT { BUNDLE.to_owned() } else { format!("{BUNDLE}-{number}") }
}

impl Agent {
    /// What is known of a container that was made, for `act`.
    pub fn served(&self, number: u32, act: &str) -> Result<(&Served, &Container)> {
        let served = self.containers.iter().find(|served| served.number == number && !served.removing);
        served
            .and_then(|served| Some((served, served.container.as_ref()?)))
            .ok_or_else(|| Error::new(Kind::State, format!("{act}: the guest has no container")))
    }

    /// A container that was made, for `act`.
    pub fn container(&self, number: u32, act: &str) -> Result<&Container> {
        self.served(number, act).map(|(_, container)| container)
    }

    /// What is known of a container, whatever is done with it.
    pub fn known(&mut self, number: u32) -> Option<&mut Served> {
        self.containers.iter_mut().find(|served| served.number == number)
    }

    /// How often the kernel has killed in a container.
    pub fn kills(&self, number: u32) -> u64 {
        self.containers.iter().find(|served| served.number == number).map_or(0, |served| served.kills)
    }

    /// A container was made.
    pub fn attach_container(&mut self, number: u32) {
        if let Some(served) = self.known(number) {
            served.attach();
        }
    }

    /// Nothing is left of a container but its bundle directory: its number is free.
    pub fn forget(&mut self, number: u32) {
        self.containers.retain(|served| served.number != number);
        let _ = std::fs::remove_dir_all(bundle(number));
    }

    /// Tells the host of what the kernel killed for lack of memory.
    pub fn look_at_memory(&mut self) {
        for served in &mut self.containers {
            served.look_at_memory(&mut self.link);
        }
    }
}
