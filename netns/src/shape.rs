//! Rates made true: queueing disciplines on the host's side, out of the container's reach, changed live.
//!
//! A ceiling alone is a token bucket: towards the container on the host's end, from it on an `ifb` device that what
//! arrives at the host's end is led through, shaped rather than dropped. Where the network has a rate of its own, all
//! its containers are led through one `ifb` each way, whose HTB has a class a container: its guarantee, its ceiling, and
//! a share of what is left over by the size of the guarantee. Which class a packet is of is said by a program of four
//! instructions at the host's end, so that it takes as long with a thousand containers as with one.
//!
//! Owns these disciplines and devices. Every act can be repeated, and finishes what a killed call began.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;

use crate::address::digest;
use crate::error::{Error, Result};
use crate::fault;
use crate::link::{Link, Links, NewLink};
use crate::nft::schema::END;
use crate::rate::{Rate, Total, Way};
use crate::record::Wired;
use crate::sys::bpf;
use crate::sys::netlink::{Attrs, CREATE, REPLACE, Request, u32_at};

const ROOT: u32 = 0xffff_ffff;
/// Where `clsact` stands, and the two lists of filters that it has.
const CLSACT: u32 = 0xffff_fff1;
const ARRIVING: u32 = 0xffff_fff2;
const LEAVING: u32 = 0xffff_fff3;
/// Numbers of disciplines and classes, 10c0: and 10c0:N. A packet keeps its class as its priority and may leave by an
/// interface with the admin's own HTB, which is called 1: as a rule.
const MAJOR: u32 = 0x10c0_0000;
/// The class of the network's rate, whose children those of containers are.
const ALL: u32 = MAJOR | 1;
const KIND: u16 = libc::TCA_KIND;
const OPTIONS: u16 = libc::TCA_OPTIONS;
/// TC_LINKLAYER_ETHERNET: with it the kernel needs no table of times.
const ETHERNET: u8 = 1;

/// What names of `ifb` devices of single containers begin with, in place of the host's end's.
pub const IFB: &str = "lci-";
/// What names of a network's `ifb` devices begin with, each way.
pub const POOLS: [(&str, Way); 2] = [("lcd-", Way::Down), ("lcu-", Way::Up)];

/// The `ifb` device of the host's end `host`.
pub fn ifb_name(host: &str) -> String {
    format!("{IFB}{}", host.strip_prefix(END).unwrap_or(host))
}

/// The `ifb` device of a network.
pub fn pool_name(network: &str, way: Way) -> String {
    let prefix = POOLS.iter().find(|(_, other)| *other == way).map_or(IFB, |(prefix, _)| prefix);
    format!("{prefix}{:011x}", digest(&["pool", network]) >> 20)
}

/// What may go at once: 10 ms, and never less than a large packet of segmentation offload.
fn burst(rate: Rate) -> u64 {
    (rate.bytes() / 100).max(64 << 10)
}

fn small(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn tcmsg(index: u32, handle: u32, parent: u32, info: u32) -> [u8; 20] {
    let mut body = [0; 20];
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    body[8..12].copy_from_slice(&handle.to_ne_bytes());
    body[12..16].copy_from_slice(&parent.to_ne_bytes());
    body[16..20].copy_from_slice(&info.to_ne_bytes());
    body
}

/// `struct tc_ratespec`, twelve bytes.
fn ratespec(rate: Rate) -> [u8; 12] {
    let mut spec = [0u8; 12];
    spec[1] = ETHERNET;
    spec[8..12].copy_from_slice(&small(rate.bytes()).to_ne_bytes());
    spec
}

fn token_bucket(index: u32, rate: Rate) -> Request {
    const PARMS: u16 = 1;
    const RATE64: u16 = 4;
    const BURST: u16 = 6;
    // struct tc_tbf_qopt: rate, peak rate, limit, buffer, mtu. What waits at most is 50 ms beyond the burst.
    let mut parms = [0u8; 36];
    parms[..12].copy_from_slice(&ratespec(rate));
    let limit = burst(rate) + (rate.bytes() / 20).max(64 << 10);
    parms[24..28].copy_from_slice(&small(limit).to_ne_bytes());
    let mut options = Attrs::new().put(PARMS, &parms).u32(BURST, small(burst(rate)));
    if small(rate.bytes()) == u32::MAX {
        options = options.put(RATE64, &rate.bytes().to_ne_bytes());
    }
    let attrs = Attrs::new().text(KIND, "tbf").nest(OPTIONS, options);
    Request::new(libc::RTM_NEWQDISC, REPLACE, &tcmsg(index, MAJOR, ROOT, 0), attrs)
}

/// The discipline that classes stand in; what is of no class is not held up.
fn htb(index: u32) -> Request {
    const INIT: u16 = 2;
    // struct tc_htb_glob: version, rate to quantum, default class, debug, direct packets.
    let words: [u32; 5] = [3, 10, 0, 0, 0];
    let glob: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let attrs = Attrs::new().text(KIND, "htb").nest(OPTIONS, Attrs::new().put(INIT, &glob));
    Request::new(libc::RTM_NEWQDISC, CREATE, &tcmsg(index, MAJOR, ROOT, 0), attrs)
}

/// A class of `rate`, up to `ceiling` where others leave something; `turn` bytes at a time of that.
fn class(index: u32, parent: u32, number: u32, rate: Rate, ceiling: Rate, turn: u32) -> Request {
    const PARMS: u16 = 1;
    const RATE64: u16 = 6;
    const CEIL64: u16 = 7;
    /// A tick of the packet scheduler is 64 ns.
    const TICK: u64 = 64;
    let time = |rate: Rate| {
        let nanoseconds = u128::from(burst(rate)) * 1_000_000_000 / u128::from(rate.bytes().max(1));
        u32::try_from(nanoseconds / u128::from(TICK)).unwrap_or(u32::MAX)
    };
    // struct tc_htb_opt: rate, ceiling, buffer, ceiling's buffer, quantum, level, priority.
    let mut opt = Vec::new();
    opt.extend_from_slice(&ratespec(rate));
    opt.extend_from_slice(&ratespec(ceiling));
    for word in [time(rate), time(ceiling), turn, 0, 0] {
        opt.extend_from_slice(&word.to_ne_bytes());
    }
    let mut options = Attrs::new().put(PARMS, &opt);
    for (kind, rate) in [(RATE64, rate), (CEIL64, ceiling)] {
        if small(rate.bytes()) == u32::MAX {
            options = options.put(kind, &rate.bytes().to_ne_bytes());
        }
    }
    let attrs = Attrs::new().text(KIND, "htb").nest(OPTIONS, options);
    Request::new(libc::RTM_NEWTCLASS, libc::NLM_F_CREATE as u16, &tcmsg(index, number, parent, 0), attrs)
}

/// Leads what passes `index` to the interface `to`; `program` says for which class.
fn lead(index: u32, way: Way, to: u32, program: &OwnedFd) -> Request {
    const BPF_ACT: u16 = 1;
    const BPF_FD: u16 = 6;
    const BPF_NAME: u16 = 7;
    // struct tc_mirred: index, capab, action TC_ACT_STOLEN, refcnt, bindcnt, egress redirect, interface.
    let words: [u32; 7] = [0, 0, 4, 0, 0, 1, to];
    let mirred: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let action = Attrs::new().text(1, "mirred").nest(2, Attrs::new().put(2, &mirred));
    let options = Attrs::new()
        .u32(BPF_FD, program.as_fd().as_raw_fd() as u32)
        .text(BPF_NAME, "locule")
        .nest(BPF_ACT, Attrs::new().nest(1, action));
    let attrs = Attrs::new().text(KIND, "bpf").nest(OPTIONS, options);
    Request::new(libc::RTM_NEWTFILTER, REPLACE, &tcmsg(index, 1, list(way), filter_info()), attrs)
}

fn list(way: Way) -> u32 {
    match way {
        Way::Down => LEAVING,
        Way::Up => ARRIVING,
    }
}

/// Priority 1, every protocol (ETH_P_ALL in network order).
fn filter_info() -> u32 {
    1 << 16 | u32::from((libc::ETH_P_ALL as u16).to_be())
}

fn forgive(result: nix::Result<()>, fine: &[Errno]) -> nix::Result<()> {
    match result {
        Err(errno) if fine.contains(&errno) => Ok(()),
        other => other,
    }
}

/// Makes the limits of an interface what `wired` says, in a network whose rate is `total`.
pub fn apply(links: &mut Links, wired: &Wired, total: Total) -> Result<()> {
    let link = links.need(&wired.host)?;
    for way in Way::ALL {
        match (total.of(way), wired.slot) {
            (total, Some(slot)) if !total.is_none() => pooled(links, &link, wired, way, total, slot)?,
            _ => alone(links, &link, wired, way)?,
        }
    }
    Ok(())
}

/// A class of the network's HTB.
fn pooled(links: &mut Links, link: &Link, wired: &Wired, way: Way, total: Rate, slot: u16) -> Result<()> {
    let doing =
        |what: &str| format!("giving {} a part of network {}'s rate: {what}", wired.host, wired.network);
    let to = ensure_pool(links, &wired.network, way, total, link.mtu)?;
    let least = wired.rates.least(way);
    // Without a guarantee it still gets something: a thousandth, as a bridge has no more ports.
    let rate = if least.is_none() { Rate((total.0 / 1024).max(8_000)) } else { least };
    let ceiling = Some(wired.rates.most(way)).filter(|most| !most.is_none()).unwrap_or(total).min(total);
    let ceiling = ceiling.max(rate);
    // What is left over goes round by turns, the longer the larger the guarantee: ten milliseconds of all, and up
    // to sixteen times that.
    let unit = (total.bytes() / 100).clamp(1514, 64 << 10);
    let turn = unit + unit * 15 * rate.0.min(total.0) / total.0;
    let number = MAJOR | u32::from(slot);
    links
        .socket()
        .call(class(to, ALL, number, rate, ceiling, small(turn)))
        .map_err(|errno| Error::sys(errno, doing("its class")).needs_module("sch_htb"))?;
    fault::point("class");
    let program = program(number)?;
    gate(links, link)?;
    links.socket().call(lead(link.index, way, to, &program)).map_err(|errno| {
        Error::sys(errno, doing("leading its packets")).needs_module("cls_bpf and act_mirred")
    })?;
    // What was there before the network had a rate.
    match way {
        Way::Down => remove_root(links, link.index),
        Way::Up => links.remove(&ifb_name(&wired.host)).map(drop),
    }
}

/// A token bucket of the interface's own.
fn alone(links: &mut Links, link: &Link, wired: &Wired, way: Way) -> Result<()> {
    let doing = |what: &str| format!("limiting {} ({}): {what}", wired.host, way.word());
    let most = wired.rates.most(way);
    let bucket = |links: &mut Links, index: u32| {
        links
            .socket()
            .call(token_bucket(index, most))
            .map_err(|errno| Error::sys(errno, doing("its queue")).needs_module("sch_tbf"))
    };
    match (way, most.is_none()) {
        (Way::Down, true) => remove_root(links, link.index)?,
        (Way::Down, false) => bucket(links, link.index)?,
        (Way::Up, true) => {}
        (Way::Up, false) => {
            let ifb = ifb_name(&wired.host);
            if links.find(&ifb)?.is_none() {
                links.add_ifb(NewLink { name: &ifb, mac: None, mtu: Some(link.mtu) }, 32)?;
            }
            let to = links.need(&ifb)?.index;
            bucket(links, to)?;
            let program = program(MAJOR)?;
            gate(links, link)?;
            links.socket().call(lead(link.index, way, to, &program)).map_err(|errno| {
                Error::sys(errno, doing("leading its packets")).needs_module("cls_bpf and act_mirred")
            })?;
            return leave_pool(links, wired, way);
        }
    }
    let body = tcmsg(link.index, 0, list(way), filter_info());
    forgive(
        links.socket().call(Request::new(libc::RTM_DELTFILTER, 0, &body, Attrs::new())),
        &[Errno::ENOENT, Errno::EINVAL],
    )
    .map_err(|errno| Error::sys(errno, doing("lifting it")))?;
    if way == Way::Up {
        links.remove(&ifb_name(&wired.host))?;
    }
    leave_pool(links, wired, way)
}

/// The place where filters stand, made unless it is there.
fn gate(links: &mut Links, link: &Link) -> Result<()> {
    let attrs = Attrs::new().text(KIND, "clsact");
    let request = Request::new(libc::RTM_NEWQDISC, CREATE, &tcmsg(link.index, 0xffff_0000, CLSACT, 0), attrs);
    forgive(links.socket().call(request), &[Errno::EEXIST]).map_err(|errno| {
        Error::sys(errno, format!("making a place for filters on {}", link.name)).needs_module("sch_ingress")
    })
}

/// A program that says of every packet: it is of the class `number`.
fn program(number: u32) -> Result<OwnedFd> {
    bpf::classifier(number).map_err(|errno| {
        Error::sys(errno, "loading the program that tells classes (BPF_PROG_TYPE_SCHED_CLS)")
    })
}

/// The network's `ifb` with its HTB and the class of all; returns its number.
fn ensure_pool(links: &mut Links, network: &str, way: Way, total: Rate, mtu: u32) -> Result<u32> {
    let doing = |what: &str| format!("limiting network {network} ({}): {what}", way.word());
    let name = pool_name(network, way);
    if links.find(&name)?.is_none() {
        links.add_ifb(NewLink { name: &name, mac: None, mtu: Some(mtu) }, 1000)?;
    }
    fault::point("pool");
    let to = links.need(&name)?.index;
    forgive(links.socket().call(htb(to)), &[Errno::EEXIST])
        .map_err(|errno| Error::sys(errno, doing("its queue")).needs_module("sch_htb"))?;
    links
        .socket()
        .call(class(to, MAJOR, ALL, total, total, 64 << 10))
        .map_err(|errno| Error::sys(errno, doing("the class of all")))?;
    Ok(to)
}

fn leave_pool(links: &mut Links, wired: &Wired, way: Way) -> Result<()> {
    let Some(slot) = wired.slot else { return Ok(()) };
    let Some(pool) = links.find(&pool_name(&wired.network, way))? else { return Ok(()) };
    remove_class(links, pool.index, MAJOR | u32::from(slot))
}

fn remove_class(links: &mut Links, pool: u32, number: u32) -> Result<()> {
    let request = Request::new(libc::RTM_DELTCLASS, 0, &tcmsg(pool, number, 0, 0), Attrs::new());
    forgive(links.socket().call(request), &[Errno::ENOENT, Errno::EINVAL])
        .map_err(|errno| Error::sys(errno, "removing a class"))
}

/// Takes away what `apply` made beside the host's end, which takes its own with it.
pub fn remove(links: &mut Links, wired: &Wired) -> Result<()> {
    if !wired.rates.up.is_none() {
        links.remove(&ifb_name(&wired.host))?;
    }
    Way::ALL.into_iter().try_for_each(|way| leave_pool(links, wired, way))
}

/// Takes away what a network has of its own.
pub fn remove_pools(links: &mut Links, network: &str) -> Result<()> {
    Way::ALL.into_iter().try_for_each(|way| links.remove(&pool_name(network, way)).map(drop))
}

/// Removes the classes of a network that are of none of `slots`; returns how many.
pub fn sweep(links: &mut Links, network: &str, slots: &[u16]) -> Result<usize> {
    let mut removed = 0;
    for way in Way::ALL {
        let Some(pool) = links.find(&pool_name(network, way))? else { continue };
        let request = Request::new(libc::RTM_GETTCLASS, 0, &tcmsg(pool.index, 0, 0, 0), Attrs::new());
        let classes = links
            .socket()
            .dump(&request)
            .map_err(|errno| Error::sys(errno, format!("listing classes of {}", pool.name)))?;
        for number in classes.iter().filter_map(|class| u32_at(&class.payload, 8)) {
            let known = slots.iter().any(|slot| MAJOR | u32::from(*slot) == number);
            if number != ALL && !known {
                remove_class(links, pool.index, number)?;
                removed += 1;
            }
        }
    }
    Ok(removed)
}

fn remove_root(links: &mut Links, index: u32) -> Result<()> {
    let request = Request::new(libc::RTM_DELQDISC, 0, &tcmsg(index, 0, ROOT, 0), Attrs::new());
    forgive(links.socket().call(request), &[Errno::ENOENT, Errno::EINVAL])
        .map_err(|errno| Error::sys(errno, "lifting a limit"))
}
