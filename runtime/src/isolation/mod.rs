//! What separates a container from its host: namespaces alone, or a virtual machine inside them.
//!
//! A VM container is an ordinary container whose init becomes the monitor of a machine instead of executing the
//! workload. This crate knows no monitor: a [`Hypervisor`] is provided by the program. Owned here: what is refused
//! ([`refuse`]), which part of the document holds outside and which inside ([`split`]), what the monitor finds where
//! it runs ([`stage`]), how its kernel's modules are ordered ([`modules`]), where its sockets to the host are ([`vsock`]),
//! how what it says of itself leaves it ([`notify`]), which containers live in another's machine ([`pod`]), what stands for
//! its processes on the host (`stand`), and how later calls talk to it ([`control`]).

pub mod control;
pub mod exec;
pub mod modules;
pub mod notify;
pub mod pod;
pub mod refuse;
pub mod split;
pub mod stage;
mod stand;
pub mod takeover;
pub mod vsock;

use std::fmt::Debug;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use crate::container::Container;
use crate::error::{Error, Result};
use crate::plan::Plan;
use crate::spec::{Resources, StringMap};
use crate::state::Store;
use control::{Connection, Questions};
pub use exec::Standing;
pub use pod::Place;
pub use stage::{Stage, Starter};

/// The annotation that chooses the isolation of a container: `namespaces` or `vm`.
pub const ANNOTATION: &str = "org.locule.isolation";

/// What separates a container from its host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Isolation {
    /// Namespaces of the host's kernel.
    #[default]
    Namespaces,
    /// A kernel of its own, in a virtual machine.
    Vm,
}

impl Isolation {
    /// Whether it is the usual one, which documents leave out.
    pub fn is_namespaces(&self) -> bool {
        *self == Isolation::Namespaces
    }

    /// The isolation called `word`.
    pub fn parse(word: &str) -> Result<Isolation> {
        match word {
            "namespaces" => Ok(Isolation::Namespaces),
            "vm" => Ok(Isolation::Vm),
            _ => Err(Error::invalid(format!("isolation {word:?} is neither namespaces nor vm"))),
        }
    }

    /// What the caller asks for, else what the document does.
    pub fn choose(asked: Option<Isolation>, annotations: &StringMap) -> Result<Isolation> {
        match (asked, annotations.get(ANNOTATION)) {
            (Some(asked), _) => Ok(asked),
            (None, Some(word)) => {
                Isolation::parse(word).map_err(|err| err.context(format_args!("annotations.{ANNOTATION}")))
            }
            (None, None) => Ok(Isolation::Namespaces),
        }
    }
}

/// What is wanted of a machine, before anything is made.
#[derive(Debug)]
pub struct Wanted<'a> {
    /// The container's id.
    pub id: &'a str,
    /// The document's annotations.
    pub annotations: &'a StringMap,
    /// The limits that the workload shall see.
    pub resources: &'a Resources,
}

/// Makes virtual machines; the program provides one ([`provide`]).
///
/// What has a body here belongs to every program that makes machines, and to no other: the one inside a machine must stay
/// small, and has this library without it.
pub trait Hypervisor: Debug + Sync {
    /// Opens what the host has for a machine. Every reason to refuse one is found here; nothing is made.
    fn open(&self, wanted: &Wanted<'_>) -> Result<Box<dyn Monitor>>;

    /// The machine of another container that the one planned joins, if it does.
    fn place(&self, store: &Store, plan: &Plan) -> Result<Option<Place>> {
        pod::place_of(store, plan)
    }

    /// A connection to the monitor of the machine that runs `container`.
    fn connect(&self, container: &Container) -> Result<Box<dyn Questions>> {
        Ok(Box::new(Connection::to(container)?))
    }

    /// Waits until nothing of a container that has ended is left in another's machine.
    fn await_absence(&self, container: &Container) -> Result<()> {
        pod::await_absence(container)
    }

    /// Has this process stand for one inside.
    fn stand(&self, standing: &Standing<'_>) -> ! {
        exec::stand(standing)
    }

    /// Bytes that the host's limit of memory must be above the workload's `limit`.
    fn allowance(&self, limit: Option<u64>) -> u64;

    /// Takes over the interfaces of the calling process's network namespace: what the machine is to be told of them,
    /// and descriptors that come along. The process ends afterwards.
    fn take_over(&self) -> Result<(Vec<u8>, Vec<OwnedFd>)>;
}

/// A machine that is not there yet, with everything of the host's that it needs already open.
pub trait Monitor: Debug {
    /// The descriptors that it needs where it runs; all others are closed before.
    fn descriptors(&self) -> Vec<BorrowedFd<'_>>;

    /// Whether it gets [`Stage::sockets`].
    fn wants_sockets(&self) -> bool;

    /// Makes the machine and stays with it until its end, which becomes this process's own. What fails before
    /// [`Stage::ready`] is told by [`Stage::give_up`], and fails the creation.
    fn run(self: Box<Self>, stage: Stage) -> !;
}

static HYPERVISOR: OnceLock<&'static dyn Hypervisor> = OnceLock::new();

/// Provides what makes virtual machines; the first one stays.
pub fn provide(hypervisor: &'static dyn Hypervisor) {
    let _ = HYPERVISOR.set(hypervisor);
}

/// What makes virtual machines.
pub fn hypervisor() -> Result<&'static dyn Hypervisor> {
    HYPERVISOR.get().copied().ok_or_else(|| Error::unsupported("this program makes no virtual machines"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caller_comes_before_the_document() {
        let annotations = StringMap::from([(ANNOTATION.to_owned(), "vm".to_owned())]);
        assert_eq!(Isolation::choose(None, &annotations).unwrap(), Isolation::Vm);
        let asked = Isolation::choose(Some(Isolation::Namespaces), &annotations).unwrap();
        assert_eq!(asked, Isolation::Namespaces);
        assert_eq!(Isolation::choose(None, &StringMap::new()).unwrap(), Isolation::Namespaces);
        let wrong = StringMap::from([(ANNOTATION.to_owned(), "VM".to_owned())]);
        let err = Isolation::choose(None, &wrong).unwrap_err().to_string();
        assert!(err.contains("org.locule.isolation") && err.contains("\"VM\""), "{err}");
    }
}
