//! The networks of a host, and what is done with them: create, attach, detach, change, remove.
//!
//! Owns the order of acts: a lock over all, claims first, then the record, then the kernel. So whatever a killed
//! call left stands in files, and `gc` or the next call finishes it.

use std::fs::File;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crate::address::{Cidr, Mac};
use crate::claim::{Claimed, Claims};
use crate::classes::Classes;
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::fault;
use crate::host;
use crate::link::Links;
use crate::names::Names;
use crate::network::{Definitions, Kind, Network};
use crate::nft::element::Element;
use crate::nft::{Nft, schema};
use crate::port::Publish;
use crate::rate::{Rates, Total};
use crate::record::{Owner, Record, Records, Wired};
use crate::sys::file::{self, Lock};
use crate::sys::proc::{self, NamespaceId, Process};
use crate::wire::{self, Wiring};

/// Where definitions are by default.
pub const DEFINITIONS: &str = "/var/lib/locule/networks";
/// Where claims, records and names are by default; the leading dot keeps it out of the list of containers.
pub const RUNTIME: &str = "/run/locule/.networks";

/// What a container wants of one network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attachment {
    /// The network's name, or `none`.
    pub network: String,
    /// The interface's name in the container; without it the next `ethN`.
    pub interface: Option<String>,
    /// Addresses it must have; a family without one gets the next free.
    pub addresses: Vec<IpAddr>,
    /// Hardware address it must have.
    pub mac: Option<Mac>,
    /// Ports of the host that lead to it.
    pub ports: Vec<Publish>,
    /// Names beside its own that neighbours know it by.
    pub names: Vec<String>,
    /// Limits.
    pub rates: Rates,
    /// Whether nobody but the host reaches it unasked.
    pub firewall: bool,
}

/// What a container has got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    /// Its new interfaces, in the order in which they were wanted.
    pub interfaces: Vec<Wired>,
    /// The hosts file to bind into it.
    pub hosts: Option<PathBuf>,
    /// The resolv.conf to bind into it.
    pub resolv: PathBuf,
}

/// Files to bind into a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    /// Its /etc/hosts, unless it is on no network.
    pub hosts: Option<PathBuf>,
    /// Its /etc/resolv.conf.
    pub resolv: PathBuf,
}

/// The networks of a host.
///
/// What a manager of long-lived containers does, from the first start to a change while it runs and to its end. Nothing
/// is kept but what the manager keeps itself (here the address); after a reboot of the host the same calls do.
///
/// ```no_run
/// use locule_netns::networks::{DEFINITIONS, RUNTIME};
/// use locule_netns::{Attachment, Networks, Owner};
/// # fn create(_: Option<std::path::PathBuf>, _: std::path::PathBuf) -> i32 { 1 }
/// # fn start() {}
/// # fn main() -> locule_netns::Result<()> {
/// let networks = Networks::open(DEFINITIONS.as_ref(), RUNTIME.as_ref())?;
/// let network = networks.ensure_default()?;
/// let mut wanted = Attachment { network: network.name.clone(), ..Attachment::default() };
/// wanted.ports = vec!["8080:80".parse()?];
/// wanted.rates.up = "20mbit".parse()?;
///
/// // Before it is created: files to bind to /etc/hosts and /etc/resolv.conf.
/// let files = networks.prepare("web1", std::slice::from_ref(&wanted))?;
/// // Created, not started: init waits in its network namespace.
/// let init = create(files.hosts, files.resolv);
/// let (owner, namespace) = Owner::process(init)?;
/// let attached = networks.attach(&namespace, owner, "web1", std::slice::from_ref(&wanted))?;
/// start();
///
/// // The address is now the machine's own, also while it is stopped.
/// let address = attached.interfaces[0].addresses[0].address;
/// networks.reserve(&network.name, "web1", &[address])?;
/// wanted.addresses = vec![address];
///
/// // While it runs.
/// let mut rates = wanted.rates;
/// rates.down = "100mbit".parse()?;
/// networks.change("web1", &network.name, Some(rates), None)?;
/// for traffic in networks.traffic()?.iter().filter(|of| of.host == attached.interfaces[0].host) {
///     println!("class {}: {} bytes in, {} out", traffic.class, traffic.received, traffic.sent);
/// }
///
/// // At its end, whichever it was: stopped, crashed, the host rebooted. Whatever is left to do is done.
/// networks.detach("web1", None)?;
/// // And when it is removed for good.
/// networks.unreserve("web1")?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Networks {
    pub(crate) definitions: Definitions,
    dir: PathBuf,
    pub(crate) run: PathBuf,
    pub(crate) claims: Claims,
    pub(crate) records: Records,
    pub(crate) names: Names,
    pub(crate) home: File,
}

impl Networks {
    /// The networks defined in `definitions`, with claims and records below `run`; neither need exist.
    pub fn open(definitions: &Path, run: &Path) -> Result<Networks> {
        Ok(Networks {
            definitions: Definitions::new(definitions),
            dir: definitions.to_owned(),
            run: run.to_owned(),
            claims: Claims::new(run),
            records: Records::new(&run.join("containers")),
            names: Names::new(&run.join("names")),
            home: proc::own_namespace()?,
        })
    }

    /// The definitions.
    pub fn definitions(&self) -> &Definitions {
        &self.definitions
    }

    /// The records of containers.
    pub fn records(&self) -> &Records {
        &self.records
    }

    /// The names of containers.
    pub fn names(&self) -> &Names {
        &self.names
    }

    pub(crate) fn lock(&self) -> Result<Lock> {
        file::make_dir(&self.run)?;
        Lock::take(&self.run.join(".lock"))
    }

    /// The classes of traffic.
    pub fn classes(&self) -> Result<Classes> {
        Classes::load(&self.dir.join(".classes.json"))
    }

    pub(crate) fn lives(&self, container: &str) -> bool {
        // What cannot be read is not taken away from anybody.
        self.records.load(container).map_or(true, |record| record.is_some_and(|record| record.owner.lives()))
    }

    /// The comment of our tables: the schema's version and whose they are.
    pub(crate) fn comment(&self) -> String {
        format!("locule {} {}", schema::VERSION, self.run.display())
    }

    /// Makes locule's tables unless they are there as they should be.
    pub(crate) fn ensure_tables(&self, nft: &mut Nft) -> Result<()> {
        match nft.owner()? {
            Some(comment) if comment == self.comment() => Ok(()),
            Some(comment) if comment.splitn(3, ' ').nth(2) != self.run.to_str() => {
                Err(Error::taken(format!(
                    "locule's tables in this network namespace belong to {:?}",
                    comment.splitn(3, ' ').nth(2).unwrap_or_default()
                ))
                .hint("use the same --claims, or remove them: nft delete table inet locule"))
            }
            _ => nft.build(&self.comment(), &self.expected()?),
        }
    }

    /// Every element that should be there: of all networks that are in use and all records.
    pub(crate) fn expected(&self) -> Result<Vec<Element>> {
        let mut elements = self.classes()?.elements();
        let mut links = Links::own()?;
        for network in self.definitions.all()? {
            if network.kind == Kind::Bridge && links.find(&network.bridge_name())?.is_some() {
                elements.extend(host::elements(&network));
            }
        }
        for record in self.records.all()? {
            elements.extend(record.interfaces.iter().flat_map(wire::elements));
        }
        // Elements of one set beside each other make few messages.
        elements.sort_by_key(|element| std::ptr::from_ref(element.set).addr());
        Ok(elements)
    }

    /// Wires a container: every wanted interface, or none.
    pub fn attach(
        &self,
        namespace: &File,
        owner: Owner,
        container: &str,
        wanted: &[Attachment],
    ) -> Result<Attached> {
        crate::network::check_name(container)?;
        if NamespaceId::of(namespace)? == NamespaceId::of(&self.home)? {
            return Err(Error::invalid(format!("container {container:?} uses the host's own network"))
                .hint("create it with a network namespace of its own"));
        }
        let _lock = self.lock()?;
        let before = self.known(container, &owner)?;
        let mut record = before.clone().unwrap_or_else(|| Record::new(container, owner));
        let first = record.interfaces.len();
        let mut claimed = Claimed::new();
        let networks = match self.plan(&mut record, wanted, &mut claimed) {
            Ok(networks) => networks,
            Err(err) => {
                self.claims.release(&claimed)?;
                return Err(err);
            }
        };
        fault::point("claimed");
        record.working = Process::own();
        self.records.save(&record)?;
        fault::point("recorded");
        match self.wire(&mut record, first, &networks, namespace) {
            Ok((hosts, resolv)) => {
                record.working = None;
                self.records.save(&record)?;
                Ok(Attached { interfaces: record.interfaces.split_off(first), hosts, resolv })
            }
            Err(err) => {
                self.unwire(&record, first)?;
                match &before {
                    Some(before) => self.records.save(before)?,
                    None => self.drop_record(container)?,
                }
                Err(err)
            }
        }
    }

    /// Makes the files that a container finds names by, before it is created: to bind to its /etc/hosts and
    /// /etc/resolv.conf. They are kept current from `attach` on, and theirs until `detach` or the caller's end.
    pub fn prepare(&self, container: &str, wanted: &[Attachment]) -> Result<Prepared> {
        let _lock = self.lock()?;
        let networks: Vec<Network> =
            wanted.iter().map(|wanted| self.wanted(&wanted.network)).collect::<Result<_>>()?;
        match self.records.load(container)? {
            Some(record) if record.owner.lives() && !record.is_prepared() => {}
            Some(record) => self.forget(&record)?,
            None => {}
        }
        if self.records.load(container)?.is_none() {
            // Until it has a namespace it is the caller's, so that gc leaves the files alone.
            let owner = Owner::process(std::process::id() as i32)?.0;
            let record = Record { working: Process::own(), ..Record::new(container, owner) };
            self.records.save(&record)?;
        }
        let named: Vec<&str> = networks
            .iter()
            .filter(|network| network.kind != Kind::None)
            .map(|network| network.name.as_str())
            .collect();
        let hosts = match named.as_slice() {
            [] => None,
            [one] => Some(self.names.prepare(one)?),
            several => Some(self.names.prepare_own(container, several)?),
        };
        let resolv = self.names.write_resolv(container, &networks.iter().collect::<Vec<_>>())?;
        Ok(Prepared { hosts, resolv })
    }

    /// What is known of the container; what an earlier one of its name left is taken away.
    fn known(&self, container: &str, owner: &Owner) -> Result<Option<Record>> {
        let Some(record) = self.records.load(container)? else { return Ok(None) };
        if record.is_prepared() {
            return Ok(None);
        }
        if record.owner.namespace == owner.namespace && record.owner.lives() {
            return Ok(Some(self.settled(record)?));
        }
        if record.owner.lives() {
            return Err(Error::taken(format!("another container {container:?} has networks")));
        }
        self.forget(&record)?;
        Ok(None)
    }

    /// Undoes what a killed call began on a living container.
    pub(crate) fn settled(&self, record: Record) -> Result<Record> {
        if record.working.is_none() {
            return Ok(record);
        }
        // Which interface was finished is not known: what is not there whole goes.
        let (whole, broken) = self.sort_out(&record)?;
        for wired in &broken {
            self.take_down(&record, wired)?;
        }
        let settled = Record { working: None, interfaces: whole, ..record };
        // Limits are the last of what is made, and do not show in the container.
        for wired in settled.interfaces.iter().filter(|wired| wired.is_shaped()) {
            crate::shape::apply(&mut Links::own()?, wired, self.total(&wired.network)?)?;
        }
        self.records.save(&settled)?;
        Ok(settled)
    }

    /// Interfaces that exist in the container, and those that do not.
    fn sort_out(&self, record: &Record) -> Result<(Vec<Wired>, Vec<Wired>)> {
        let path = record.owner.path().unwrap_or_default();
        let Ok(namespace) = File::open(path) else { return Ok((Vec::new(), record.interfaces.clone())) };
        let mut links = Links::within(&namespace, &self.home)?;
        let addresses = links.addresses()?;
        let mut whole = Vec::new();
        let mut broken = Vec::new();
        for wired in &record.interfaces {
            let link = links.find(&wired.interface)?;
            let complete = link.is_some_and(|link| {
                let has =
                    |wanted: &Cidr| addresses.iter().any(|(index, a)| *index == link.index && a == wanted);
                wired.addresses.iter().all(has)
            });
            if complete { whole.push(wired.clone()) } else { broken.push(wired.clone()) }
        }
        Ok((whole, broken))
    }

    /// The rate of a network; a definition that is gone has none.
    fn total(&self, network: &str) -> Result<Total> {
        if !self.definitions.has(network) {
            return Ok(Total::default());
        }
        Ok(self.definitions.load(network)?.total)
    }

    fn wire(
        &self,
        record: &mut Record,
        first: usize,
        networks: &[Network],
        namespace: &File,
    ) -> Result<(Option<PathBuf>, PathBuf)> {
        let mut wiring = Wiring::new(&self.home)?;
        let of_ours = |wired: &Wired| matches!(wired.kind, Kind::Bridge | Kind::Routed);
        if record.interfaces[first..].iter().any(of_ours) {
            self.ensure_tables(wiring.nft()?)?;
        }
        wire::loopback(namespace, &self.home)?;
        let mut default = first == 0;
        for (number, network) in networks.iter().enumerate() {
            let wired = &record.interfaces[first + number];
            let act = || format!("connecting container {:?} to network {}", record.container, network.name);
            if network.kind == Kind::Cni {
                let added = crate::cni::add(network, record, wired).map_err(|err| err.context(act()))?;
                record.interfaces[first + number] = added;
                self.records.save(record)?;
                default = false;
                continue;
            }
            wiring.up(network, wired, namespace, default).map_err(|err| err.context(act()))?;
            default &= network.internal || network.subnets.iter().all(|subnet| subnet.gateway.is_none());
            default &= network.kind != Kind::Routed;
        }
        let hosts = self.names.add(&record.container, &record.interfaces[first..], first == 0)?;
        let all: Vec<&Network> = networks.iter().collect();
        let resolv = self.names.write_resolv(&record.container, &all)?;
        fault::point("names");
        Ok((hosts, resolv))
    }

    fn take_down(&self, record: &Record, wired: &Wired) -> Result<()> {
        let mut wiring = Wiring::new(&self.home)?;
        wiring.down(record, wired).map_err(|err| {
            err.context(format!(
                "disconnecting container {:?} from network {}",
                record.container, wired.network
            ))
        })?;
        self.names.remove(&record.container, wired)?;
        self.claims.release(&wired.claims)
    }

    fn unwire(&self, record: &Record, first: usize) -> Result<()> {
        record.interfaces[first..].iter().rev().try_for_each(|wired| self.take_down(record, wired))
    }

    fn drop_record(&self, container: &str) -> Result<()> {
        self.names.forget(container)?;
        self.records.remove(container)
    }

    /// Takes away all that a container has.
    pub(crate) fn forget(&self, record: &Record) -> Result<()> {
        self.unwire(record, 0)?;
        self.drop_record(&record.container)
    }

    /// Takes a container off one network, or off all; false if there was nothing to do.
    pub fn detach(&self, container: &str, network: Option<&str>) -> Result<bool> {
        let _lock = self.lock()?;
        let Some(mut record) = self.records.load(container)? else { return Ok(false) };
        let Some(network) = network else {
            self.forget(&record)?;
            return Ok(true);
        };
        let Some(at) = record.interfaces.iter().position(|wired| wired.network == network) else {
            return Ok(false);
        };
        self.take_down(&record, &record.interfaces[at].clone())?;
        record.interfaces.remove(at);
        if record.interfaces.is_empty() {
            self.drop_record(container)?;
        } else {
            self.records.save(&record)?;
        }
        Ok(true)
    }

    /// Whether what a container should have is there; tells what is not.
    pub fn check(&self, container: &str) -> Result<()> {
        let _lock = self.lock()?;
        let record = self.records.load(container)?.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, format!("container {container:?} is on no network"))
        })?;
        if !record.owner.lives() {
            return Err(Error::new(ErrorKind::NotFound, format!("container {container:?} is gone"))
                .hint("`locule network gc` removes what it left"));
        }
        let (_, broken) = self.sort_out(&record)?;
        if let Some(wired) = broken.first() {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!(
                    "container {container:?} has lost its interface {} or an address of it",
                    wired.interface
                ),
            )
            .hint(format!("disconnect it from network {} and connect it again", wired.network)));
        }
        let wanted: Vec<Element> = record.interfaces.iter().flat_map(wire::elements).collect();
        for set in schema::sets() {
            let mut wanted = wanted.iter().filter(|element| std::ptr::eq(element.set, set)).peekable();
            if wanted.peek().is_none() {
                continue;
            }
            let held: Vec<Element> = Nft::open()?.list(set)?.into_iter().map(|held| held.element).collect();
            if !wanted.all(|element| held.contains(element)) {
                return Err(Error::new(
                    ErrorKind::NotFound,
                    format!("container {container:?} has lost its place in the set {}", set.name),
                )
                .hint("`locule network gc` puts it back"));
            }
        }
        for wired in &record.interfaces {
            if let Some(cached) = &wired.cni {
                cached.check(&record, wired)?;
            }
        }
        Ok(())
    }

    /// Changes limits or the firewall of an interface, live.
    pub fn change(
        &self,
        container: &str,
        network: &str,
        rates: Option<Rates>,
        firewall: Option<bool>,
    ) -> Result<Wired> {
        let _lock = self.lock()?;
        let absent = || {
            Error::new(ErrorKind::NotFound, format!("container {container:?} is not on network {network}"))
        };
        let mut record = self.records.load(container)?.ok_or_else(absent)?;
        let wired = record.interfaces.iter_mut().find(|wired| wired.network == network).ok_or_else(absent)?;
        if !matches!(wired.kind, Kind::Bridge | Kind::Routed) {
            return Err(Error::invalid(format!("an interface of kind {} has no limits", wired.kind.word())));
        }
        let before = wired.clone();
        let definition = self.definitions.load(network)?;
        let asked = rates.unwrap_or(wired.rates);
        asked.check()?;
        if asked != before.rates {
            self.check_guarantee(&definition, container, asked)?;
        }
        wired.rates = asked;
        wired.firewall = firewall.unwrap_or(wired.firewall);
        let after = wired.clone();
        self.records.save(&record)?;
        if after.firewall != before.firewall {
            let mut nft = Nft::open()?;
            let (old, new) = (wire::elements(&before), wire::elements(&after));
            let only = |these: &[Element], those: &[Element]| -> Vec<Element> {
                these.iter().filter(|element| !those.contains(element)).cloned().collect()
            };
            nft.add(&only(&new, &old))?;
            nft.remove(&only(&old, &new))?;
        }
        if after.rates != before.rates {
            crate::shape::apply(&mut Links::own()?, &after, definition.total)?;
        }
        Ok(after)
    }
}

/// What one interface received and sent, by class.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Traffic {
    /// The host's end.
    pub host: String,
    /// The class of the other side.
    pub class: u32,
    /// Bytes that the container received.
    pub received: u64,
    /// Bytes that it sent.
    pub sent: u64,
}

impl Networks {
    /// What all bridged and routed interfaces received and sent, by class.
    pub fn traffic(&self) -> Result<Vec<Traffic>> {
        let mut all: std::collections::BTreeMap<(String, u32), Traffic> = std::collections::BTreeMap::new();
        let Ok(mut nft) = Nft::open() else { return Ok(Vec::new()) };
        for set in schema::counters() {
            let (class, received) = (wire::class_of(set), set.name.starts_with("received"));
            for held in nft.list(set)? {
                let host = held.element.interface();
                let bytes = held.counted.map_or(0, |(_, bytes)| bytes);
                let traffic = all.entry((host.clone(), class)).or_insert_with(|| Traffic {
                    host,
                    class,
                    ..Traffic::default()
                });
                *(if received { &mut traffic.received } else { &mut traffic.sent }) = bytes;
            }
        }
        Ok(all.into_values().collect())
    }
}
