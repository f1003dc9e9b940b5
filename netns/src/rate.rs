//! How fast a container may send and receive: queueing disciplines on the host's side, changed live.
//!
//! Towards the container a token bucket stands on the host's end. From it, what arrives at the host's end is led
//! through an `ifb` device with a token bucket of its own: shaped rather than dropped, and out of the container's
//! reach. Owns those disciplines and the `ifb` device.

use std::fmt;
use std::str::FromStr;

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::link::{Links, NewLink};
use crate::nft::schema::END;
use crate::sys::netlink::{Attrs, CREATE, REPLACE, Request};

/// Bits a second; zero is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Rate(pub u64);

/// Limits of one interface.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rates {
    /// Towards the container.
    #[serde(default, skip_serializing_if = "Rate::is_none")]
    pub down: Rate,
    /// From the container.
    #[serde(default, skip_serializing_if = "Rate::is_none")]
    pub up: Rate,
}

impl Rate {
    /// Whether there is no limit.
    pub fn is_none(&self) -> bool {
        self.0 == 0
    }

    fn bytes(self) -> u64 {
        self.0 / 8
    }

    /// What may go at once: 10 ms, and never less than a large packet of segmentation offload.
    fn burst(self) -> u64 {
        (self.bytes() / 100).max(64 << 10)
    }

    /// What waits at most: 50 ms more.
    fn limit(self) -> u64 {
        self.burst() + (self.bytes() / 20).max(64 << 10)
    }
}

impl Rates {
    /// Whether there is no limit at all.
    pub fn is_unlimited(&self) -> bool {
        self.down.is_none() && self.up.is_none()
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("none"),
            bits if bits % 1_000_000_000 == 0 => write!(f, "{}gbit", bits / 1_000_000_000),
            bits if bits % 1_000_000 == 0 => write!(f, "{}mbit", bits / 1_000_000),
            bits if bits % 1_000 == 0 => write!(f, "{}kbit", bits / 1_000),
            bits => write!(f, "{bits}bit"),
        }
    }
}

impl FromStr for Rate {
    type Err = Error;

    fn from_str(text: &str) -> Result<Rate> {
        let wrong =
            || Error::invalid(format!("{text:?} is no rate")).hint("as 500kbit, 20mbit, 1gbit, or none");
        if text == "none" {
            return Ok(Rate(0));
        }
        let at = text.find(|letter: char| !letter.is_ascii_digit()).ok_or_else(wrong)?;
        let number: u64 = text[..at].parse().map_err(|_| wrong())?;
        let unit = match &text[at..] {
            "bit" => 1,
            "kbit" => 1_000,
            "mbit" => 1_000_000,
            "gbit" => 1_000_000_000,
            _ => return Err(wrong()),
        };
        let bits = number.checked_mul(unit).filter(|bits| (8_000..=1 << 50).contains(bits));
        bits.map(Rate).ok_or_else(|| wrong().hint("at least 8kbit"))
    }
}

impl TryFrom<String> for Rate {
    type Error = Error;

    fn try_from(text: String) -> Result<Rate> {
        text.parse()
    }
}

impl From<Rate> for String {
    fn from(rate: Rate) -> String {
        rate.to_string()
    }
}

const ROOT: u32 = 0xffff_ffff;
const INGRESS: u32 = 0xffff_fff1;
const KIND: u16 = libc::TCA_KIND;
const OPTIONS: u16 = libc::TCA_OPTIONS;
const TBF_PARMS: u16 = 1;
const TBF_RATE64: u16 = 4;
const TBF_BURST: u16 = 6;

fn tcmsg(index: u32, handle: u32, parent: u32, info: u32) -> [u8; 20] {
    let mut body = [0; 20];
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    body[8..12].copy_from_slice(&handle.to_ne_bytes());
    body[12..16].copy_from_slice(&parent.to_ne_bytes());
    body[16..20].copy_from_slice(&info.to_ne_bytes());
    body
}

fn token_bucket(index: u32, rate: Rate) -> Request {
    // struct tc_tbf_qopt: two rate specifications of twelve bytes, limit, buffer, mtu.
    let mut parms = [0u8; 36];
    // Ethernet framing (TC_LINKLAYER_ETHERNET), so that the kernel needs no table of times.
    parms[1] = 1;
    let small = u32::try_from(rate.bytes()).unwrap_or(u32::MAX);
    parms[8..12].copy_from_slice(&small.to_ne_bytes());
    let limit = u32::try_from(rate.limit()).unwrap_or(u32::MAX);
    parms[24..28].copy_from_slice(&limit.to_ne_bytes());
    let burst = u32::try_from(rate.burst()).unwrap_or(u32::MAX);
    let mut options = Attrs::new().put(TBF_PARMS, &parms).u32(TBF_BURST, burst);
    if small == u32::MAX {
        options = options.put(TBF_RATE64, &rate.bytes().to_ne_bytes());
    }
    let attrs = Attrs::new().text(KIND, "tbf").nest(OPTIONS, options);
    Request::new(libc::RTM_NEWQDISC, REPLACE, &tcmsg(index, 0x1_0000, ROOT, 0), attrs)
}

/// Leads all that arrives at `index` to the interface `to`.
fn redirect(index: u32, to: u32) -> Request {
    const ETH_P_ALL: u32 = 0x0300;
    const U32_SEL: u16 = 5;
    const U32_ACT: u16 = 7;
    const TERMINAL: u8 = 1;
    // struct tc_mirred: index, capab, action TC_ACT_STOLEN, refcnt, bindcnt, egress redirect, interface.
    let words: [u32; 7] = [0, 0, 4, 0, 0, 1, to];
    let mirred: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let action = Attrs::new().text(1, "mirred").nest(2, Attrs::new().put(2, &mirred));
    // struct tc_u32_sel with one key whose mask is zero: it matches everything.
    let mut selector = [0u8; 16 + 16];
    selector[0] = TERMINAL;
    selector[2] = 1;
    let options = Attrs::new().put(U32_SEL, &selector).nest(U32_ACT, Attrs::new().nest(1, action));
    let attrs = Attrs::new().text(KIND, "u32").nest(OPTIONS, options);
    let body = tcmsg(index, 0, 0xffff_0000, 1 << 16 | ETH_P_ALL);
    Request::new(libc::RTM_NEWTFILTER, CREATE, &body, attrs)
}

/// What names of `ifb` devices begin with, in place of the host's end's.
pub const IFB: &str = "lci-";

/// The `ifb` device of the host's end `host`.
pub fn ifb_name(host: &str) -> String {
    format!("{IFB}{}", host.strip_prefix(END).unwrap_or(host))
}

/// Makes the limits of the host's end `host` what `rates` says.
pub fn apply(links: &mut Links, host: &str, rates: Rates) -> Result<()> {
    let link = links.need(host)?;
    let doing = |what: &str| format!("limiting {host}: {what}");
    if rates.down.is_none() {
        remove_root(links, link.index)?;
    } else {
        links
            .socket()
            .call(token_bucket(link.index, rates.down))
            .map_err(|errno| Error::sys(errno, doing("towards the container")).needs_module("sch_tbf"))?;
    }
    let ifb = ifb_name(host);
    if rates.up.is_none() {
        let attrs = Attrs::new().text(KIND, "ingress");
        let request = Request::new(libc::RTM_DELQDISC, 0, &tcmsg(link.index, 0xffff_0000, INGRESS, 0), attrs);
        match links.socket().call(request) {
            Ok(()) | Err(Errno::ENOENT | Errno::EINVAL) => {}
            Err(errno) => return Err(Error::sys(errno, doing("lifting the limit from the container"))),
        }
        return links.remove(&ifb).map(drop);
    }
    let fresh = links.find(&ifb)?.is_none();
    if fresh {
        links.add(NewLink { name: &ifb, mac: None, mtu: Some(link.mtu) }, "ifb", None)?;
    }
    let to = links.need(&ifb)?.index;
    links
        .socket()
        .call(token_bucket(to, rates.up))
        .map_err(|errno| Error::sys(errno, doing("from the container")).needs_module("sch_tbf"))?;
    if fresh {
        let attrs = Attrs::new().text(KIND, "ingress");
        let request =
            Request::new(libc::RTM_NEWQDISC, CREATE, &tcmsg(link.index, 0xffff_0000, INGRESS, 0), attrs);
        match links.socket().call(request) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => {
                return Err(Error::sys(errno, doing("from the container")).needs_module("sch_ingress"));
            }
        }
        links.socket().call(redirect(link.index, to)).map_err(|errno| {
            Error::sys(errno, doing("leading its packets through a queue"))
                .needs_module("cls_u32 and act_mirred")
        })?;
    }
    Ok(())
}

fn remove_root(links: &mut Links, index: u32) -> Result<()> {
    let request = Request::new(libc::RTM_DELQDISC, 0, &tcmsg(index, 0, ROOT, 0), Attrs::new());
    match links.socket().call(request) {
        Ok(()) | Err(Errno::ENOENT | Errno::EINVAL) => Ok(()),
        Err(errno) => Err(Error::sys(errno, "lifting a limit")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_and_printed() {
        for text in ["500kbit", "20mbit", "1gbit", "none", "12345bit"] {
            assert_eq!(text.parse::<Rate>().unwrap().to_string(), text);
        }
        for text in ["", "20", "mbit", "1bit", "20mb", "-1mbit", "99999999999999999999gbit"] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
    }
}
