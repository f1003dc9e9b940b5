//! The constant part of locule's tables: sets, chains and rules, whose number does not change
//! with the number of networks, containers or published ports.
//!
//! Owns their names and meaning. What the sets hold is decided elsewhere.

use crate::nft::expr::{
    Base, Ct, Meta, cmp, counter, ct, dnat, fib_daddr_type, fib_saddr_iif_oif, lookup, lookup_into,
    lookup_verdict, mask, masquerade, meta, payload, verdict,
};
use crate::nft::message::{Family, new_chain, new_plain_chain, new_rule, new_set};
use crate::sys::netlink::{Attrs, Request};

/// Version of this schema: tables of another are made anew.
pub const VERSION: u32 = 2;

/// How many classes traffic is counted by.
pub const CLASSES: usize = 8;

/// What names of host's ends of containers begin with; eleven hexadecimal digits follow.
pub const END: &str = "lcn-";

/// A field of a key or of a map's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// Name of an interface, sixteen bytes.
    Ifname,
    /// Hardware address.
    Ether,
    /// IPv4 address.
    Ipv4,
    /// IPv6 address.
    Ipv6,
    /// Transport protocol.
    Protocol,
    /// Port.
    Port,
}

impl Field {
    /// Its length without padding.
    pub fn width(self) -> usize {
        match self {
            Field::Ifname | Field::Ipv6 => 16,
            Field::Ether => 6,
            Field::Ipv4 => 4,
            Field::Protocol => 1,
            Field::Port => 2,
        }
    }

    /// nft(8)'s number of the type, so that it can show what is there.
    fn kind(self) -> u32 {
        match self {
            Field::Ifname => 41,
            Field::Ether => 9,
            Field::Ipv4 => 7,
            Field::Ipv6 => 8,
            Field::Protocol => 12,
            Field::Port => 13,
        }
    }
}

/// A set, or with `data` a map.
#[derive(Debug, PartialEq, Eq)]
pub struct Set {
    /// The table it is in.
    pub family: Family,
    /// Its name.
    pub name: &'static str,
    /// Fields of the key.
    pub key: &'static [Field],
    /// Fields of the data.
    pub data: &'static [Field],
    /// Whether it is a map whose data says to which chain to go.
    pub verdicts: bool,
    /// Whether keys are intervals.
    pub interval: bool,
    /// Whether each element counts.
    pub counting: bool,
}

fn kinds(fields: &[Field]) -> u32 {
    fields.iter().fold(0, |all, field| all << 6 | field.kind())
}

fn width(fields: &[Field]) -> u32 {
    match fields {
        [one] => one.width() as u32,
        several => several.iter().map(|field| field.width().next_multiple_of(4) as u32).sum(),
    }
}

impl Set {
    /// `NFT_SET_*`.
    pub fn flags(&self) -> u32 {
        let flag = |on: bool, bit: i32| if on { bit as u32 } else { 0 };
        let map = self.verdicts || !self.data.is_empty();
        flag(self.interval, libc::NFT_SET_INTERVAL) | flag(map, libc::NFT_SET_MAP)
    }

    /// nft(8)'s number of the key's type.
    pub fn key_type(&self) -> u32 {
        kinds(self.key)
    }

    /// nft(8)'s number of the data's type.
    pub fn data_type(&self) -> u32 {
        if self.verdicts {
            return libc::NFT_DATA_VERDICT;
        }
        kinds(self.data)
    }

    /// Length of a key.
    pub fn key_len(&self) -> u32 {
        width(self.key)
    }

    /// Length of the data.
    pub fn data_len(&self) -> u32 {
        width(self.data)
    }
}

const fn set(family: Family, name: &'static str, key: &'static [Field], data: &'static [Field]) -> Set {
    Set { family, name, key, data, verdicts: false, interval: false, counting: false }
}

use Family::{Bridge, Inet};
use Field::{Ether, Ifname, Ipv4, Ipv6, Port, Protocol};

/// Bridges of locule's networks.
pub static BRIDGES: Set = set(Inet, "bridges", &[Ifname], &[]);
/// Bridges whose packets leave under the host's address.
pub static NAT: Set = set(Inet, "nat", &[Ifname], &[]);
/// Bridges that nobody outside reaches unasked.
pub static CLOSED: Set = set(Inet, "closed", &[Ifname], &[]);
/// Bridges that reach nobody outside.
pub static INTERNAL: Set = set(Inet, "internal", &[Ifname], &[]);
/// Each bridge with itself, for packets that leave where they came in.
pub static LOOPS: Set = set(Inet, "loops", &[Ifname, Ifname], &[]);
/// Each container with published ports and itself: where br_netfilter is at work, `LOOPS` does not serve, as the
/// kernel does not say where a frame came in.
pub static SELVES4: Set = set(Inet, "selves4", &[Ipv4, Ipv4], &[]);
/// The same for IPv6.
pub static SELVES6: Set = set(Inet, "selves6", &[Ipv6, Ipv6], &[]);
/// Host ends of routed containers.
pub static ROUTED: Set = set(Inet, "routed", &[Ifname], &[]);
/// Routed containers that nobody reaches unasked.
pub static WALLED: Set = set(Inet, "walled", &[Ifname], &[]);
/// Published on one address of the host.
pub static PUBLISHED4: Set = set(Inet, "published4", &[Protocol, Ipv4, Port], &[Ipv4, Port]);
/// Published on all addresses of the host.
pub static PUBLISHED4_ANY: Set = set(Inet, "published4any", &[Protocol, Port], &[Ipv4, Port]);
/// As `PUBLISHED4` for IPv6.
pub static PUBLISHED6: Set = set(Inet, "published6", &[Protocol, Ipv6, Port], &[Ipv6, Port]);
/// As `PUBLISHED4_ANY` for IPv6.
pub static PUBLISHED6_ANY: Set = set(Inet, "published6any", &[Protocol, Port], &[Ipv6, Port]);
/// Ports of bridges whose sender is not checked.
pub static UNGUARDED: Set = set(Bridge, "unguarded", &[Ifname], &[]);
/// Who may send from where: port, hardware address, IPv4 address.
pub static SENDERS4: Set = set(Bridge, "senders4", &[Ifname, Ether, Ipv4], &[]);
/// Who may send from where: port, hardware address, IPv6 address.
pub static SENDERS6: Set = set(Bridge, "senders6", &[Ifname, Ether, Ipv6], &[]);
/// Ports that are cut off from other ports.
pub static WALLED_PORTS: Set = set(Bridge, "walled", &[Ifname], &[]);
/// Chains of the receivers' classes, IPv4.
pub static TO4: [Set; 2] = classes("to4", &[Ipv4]);
/// Chains of the receivers' classes, IPv6.
pub static TO6: [Set; 2] = classes("to6", &[Ipv6]);
/// Chains of the senders' classes, IPv4.
pub static FROM4: [Set; 2] = classes("from4", &[Ipv4]);
/// Chains of the senders' classes, IPv6.
pub static FROM6: [Set; 2] = classes("from6", &[Ipv6]);

/// For ports of bridges, and for host ends of routed containers, which no frame of a bridge passes.
const fn classes(name: &'static str, key: &'static [Field]) -> [Set; 2] {
    [class_map(Bridge, name, key), class_map(Inet, name, key)]
}

const fn class_map(family: Family, name: &'static str, key: &'static [Field]) -> Set {
    Set { interval: true, verdicts: true, ..set(family, name, key, &[]) }
}

const fn counts(name: &'static str) -> [Set; 2] {
    [count_set(Bridge, name), count_set(Inet, name)]
}

const fn count_set(family: Family, name: &'static str) -> Set {
    Set { counting: true, ..set(family, name, &[Ifname], &[]) }
}

/// Which of a pair of sets is for host ends of routed containers, or for ports of bridges.
pub fn of_pair(pair: &'static [Set; 2], routed: bool) -> &'static Set {
    &pair[usize::from(routed)]
}

/// What ports sent to each class; the chain that looks there has the same name.
pub static SENT: [[Set; 2]; CLASSES] = [
    counts("sent0"),
    counts("sent1"),
    counts("sent2"),
    counts("sent3"),
    counts("sent4"),
    counts("sent5"),
    counts("sent6"),
    counts("sent7"),
];
/// What ports received from each class.
pub static RECEIVED: [[Set; 2]; CLASSES] = [
    counts("received0"),
    counts("received1"),
    counts("received2"),
    counts("received3"),
    counts("received4"),
    counts("received5"),
    counts("received6"),
    counts("received7"),
];

/// The sets that there is one of.
static SINGLE: &[&Set] = &[
    &BRIDGES,
    &NAT,
    &CLOSED,
    &INTERNAL,
    &LOOPS,
    &SELVES4,
    &SELVES6,
    &ROUTED,
    &WALLED,
    &PUBLISHED4,
    &PUBLISHED4_ANY,
    &PUBLISHED6,
    &PUBLISHED6_ANY,
    &UNGUARDED,
    &SENDERS4,
    &SENDERS6,
    &WALLED_PORTS,
];

/// All sets.
pub fn sets() -> impl Iterator<Item = &'static Set> {
    let maps = [&TO4, &TO6, &FROM4, &FROM6].into_iter().flatten();
    SINGLE.iter().copied().chain(maps).chain(counters())
}

/// All sets that count.
pub fn counters() -> impl Iterator<Item = &'static Set> {
    SENT.iter().chain(&RECEIVED).flatten()
}

/// A base chain: table, name, type, hook, priority.
type Chain = (Family, &'static str, &'static str, u32, i32);

const PREROUTING: u32 = 0;
const FORWARD: u32 = 2;
const OUTPUT: u32 = 3;
const POSTROUTING: u32 = 4;

const CHAINS: &[Chain] = &[
    // Before connections are looked up, so that an answer to NAT still has the host's address.
    (Inet, "early", "filter", PREROUTING, -300),
    (Inet, "arriving", "nat", PREROUTING, -100),
    (Inet, "own", "nat", OUTPUT, -100),
    (Inet, "leaving", "nat", POSTROUTING, 100),
    (Inet, "forward", "filter", FORWARD, 0),
    // Behind what drops false senders, and behind NAT.
    (Inet, "sent", "filter", PREROUTING, -290),
    (Inet, "received", "filter", POSTROUTING, 300),
    (Bridge, "guard", "filter", PREROUTING, -300),
    (Bridge, "wall", "filter", FORWARD, -200),
    (Bridge, "sent", "filter", PREROUTING, 0),
    (Bridge, "received", "filter", POSTROUTING, 0),
];

const ETH_IP: [u8; 2] = [0x08, 0x00];
const ETH_ARP: [u8; 2] = [0x08, 0x06];
const ETH_IP6: [u8; 2] = [0x86, 0xdd];
const NFPROTO_IPV4: u8 = 2;
const NFPROTO_IPV6: u8 = 10;
const ICMPV6: u8 = libc::IPPROTO_ICMPV6 as u8;

/// `iifname` (or `oifname`) is in (or not in) a set.
fn iif(set: &Set) -> Vec<Attrs> {
    vec![meta(Meta::Iifname, 0), lookup(set.name, 0, false)]
}

fn oif(set: &Set) -> Vec<Attrs> {
    vec![meta(Meta::Oifname, 0), lookup(set.name, 0, false)]
}

fn not_oif(set: &Set) -> Vec<Attrs> {
    vec![meta(Meta::Oifname, 0), lookup(set.name, 0, true)]
}

/// The packet came in by a host's end of a container, or did not.
fn of_ours(is: bool) -> Vec<Attrs> {
    vec![meta(Meta::Iifname, 0), cmp(0, is, END.as_bytes())]
}

fn back_where_it_came_in() -> Vec<Attrs> {
    vec![meta(Meta::Iifname, 0), meta(Meta::Oifname, 4), lookup(LOOPS.name, 0, false)]
}

fn is_published() -> Vec<Attrs> {
    const IPS_DST_NAT: u32 = 1 << 5;
    vec![ct(Ct::Status, 0), mask(0, &IPS_DST_NAT.to_ne_bytes()), cmp(0, false, &[0; 4])]
}

fn is_known() -> Vec<Attrs> {
    // IP_CT_ESTABLISHED and IP_CT_RELATED as bits of the state.
    const KNOWN: u32 = 2 | 4;
    vec![ct(Ct::State, 0), mask(0, &KNOWN.to_ne_bytes()), cmp(0, false, &[0; 4])]
}

fn family_is(nfproto: u8) -> Vec<Attrs> {
    vec![meta(Meta::Nfproto, 0), cmp(0, true, &[nfproto])]
}

fn from_or_to_loopback(offset: u32) -> Vec<Attrs> {
    let mut rule = family_is(NFPROTO_IPV4);
    rule.extend([payload(Base::Network, offset, 1, 0), cmp(0, true, &[127])]);
    rule
}

/// To an address of the host: send on to what the map says.
fn publish(map: &Set, nfproto: u8) -> Vec<Attrs> {
    let mut rule = family_is(nfproto);
    rule.extend([fib_daddr_type(0), cmp(0, true, &u32::from(libc::RTN_LOCAL).to_ne_bytes())]);
    rule.push(meta(Meta::L4proto, 0));
    let mut slot = 1;
    if map.key.len() == 3 {
        let (offset, length) = if nfproto == NFPROTO_IPV4 { (16, 4) } else { (24, 16) };
        rule.push(payload(Base::Network, offset, length, slot));
        slot += length / 4;
    }
    rule.push(payload(Base::Transport, 2, 2, slot));
    // The data lands behind the longest key.
    const TO: u32 = 8;
    let port = TO + map.data[0].width() as u32 / 4;
    rule.extend([lookup_into(map.name, 0, TO), dnat(u32::from(nfproto), TO, port)]);
    rule
}

fn protocol_is(kind: [u8; 2]) -> Vec<Attrs> {
    vec![meta(Meta::Protocol, 0), cmp(0, true, &kind)]
}

/// Port, hardware sender at `ether`, and address at `offset` are in `set`.
fn sender(set: &Set, base: Base, ether: (Base, u32), offset: u32, inverted: bool) -> Vec<Attrs> {
    let length = set.key[2].width() as u32;
    vec![
        meta(Meta::Iifname, 0),
        payload(ether.0, ether.1, 6, 4),
        payload(base, offset, length, 6),
        lookup(set.name, 0, inverted),
    ]
}

fn icmpv6_type(kind: u8) -> Vec<Attrs> {
    let mut rule = protocol_is(ETH_IP6);
    rule.extend([meta(Meta::L4proto, 0), cmp(0, true, &[ICMPV6])]);
    rule.extend([payload(Base::Transport, 0, 1, 0), cmp(0, true, &[kind])]);
    rule
}

/// Goes to the chain of the class of the address at `offset`.
fn classify(kind: [u8; 2], offset: u32, classes: &Set) -> Vec<Attrs> {
    let mut rule = protocol_is(kind);
    rule.extend([
        payload(Base::Network, offset, classes.key[0].width() as u32, 0),
        lookup_verdict(classes.name, 0),
    ]);
    rule
}

fn and(parts: &[Vec<Attrs>], end: Attrs) -> Vec<Attrs> {
    parts.iter().flatten().cloned().chain([end]).collect()
}

/// All rules, chain by chain, in their order.
fn rules() -> Vec<(Family, &'static str, Vec<Attrs>)> {
    let drop = || verdict(false);
    let accept = || verdict(true);
    let mut rules = Vec::new();
    let mut add = |family, chain, rule| rules.push((family, chain, rule));

    // route_localnet is on for bridges, so that 127.0.0.1 of the host can be sent on; containers must
    // not reach the host's loopback by it (CVE-2020-8558).
    add(Inet, "early", and(&[iif(&BRIDGES), from_or_to_loopback(16)], drop()));
    add(Inet, "early", and(&[of_ours(true), from_or_to_loopback(16)], drop()));
    // Strict reverse path: what a routed container sends must come from an address routed to it.
    // Link-local senders are left to neighbour discovery.
    let link_local =
        vec![payload(Base::Network, 8, 2, 0), mask(0, &[0xff, 0xc0]), cmp(0, true, &[0xfe, 0x80])];
    add(Inet, "early", and(&[of_ours(true), family_is(NFPROTO_IPV6), link_local], accept()));
    let unreachable = vec![fib_saddr_iif_oif(0), cmp(0, true, &[0; 4])];
    add(Inet, "early", and(&[of_ours(true), unreachable], drop()));

    for chain in ["arriving", "own"] {
        add(Inet, chain, publish(&PUBLISHED4, NFPROTO_IPV4));
        add(Inet, chain, publish(&PUBLISHED4_ANY, NFPROTO_IPV4));
        add(Inet, chain, publish(&PUBLISHED6, NFPROTO_IPV6));
        add(Inet, chain, publish(&PUBLISHED6_ANY, NFPROTO_IPV6));
    }

    // A container that calls a port which itself or its neighbour publishes: the answer must come
    // back through the host, which alone can undo the change of address.
    add(Inet, "leaving", and(&[back_where_it_came_in(), is_published()], masquerade()));
    for (set, nfproto, offset) in [(&SELVES4, NFPROTO_IPV4, 12), (&SELVES6, NFPROTO_IPV6, 8)] {
        let both = set.key_len();
        let to_itself = vec![payload(Base::Network, offset, both, 0), lookup(set.name, 0, false)];
        add(Inet, "leaving", and(&[family_is(nfproto), to_itself], masquerade()));
    }
    add(Inet, "leaving", and(&[iif(&NAT), not_oif(&BRIDGES)], masquerade()));
    add(Inet, "leaving", and(&[from_or_to_loopback(12), oif(&BRIDGES)], masquerade()));
    add(Inet, "leaving", and(&[from_or_to_loopback(12), oif(&ROUTED)], masquerade()));

    add(Inet, "forward", and(&[is_known()], accept()));
    add(Inet, "forward", and(&[back_where_it_came_in()], accept()));
    add(Inet, "forward", and(&[iif(&INTERNAL)], drop()));
    add(Inet, "forward", and(&[oif(&BRIDGES), is_published()], accept()));
    add(Inet, "forward", and(&[iif(&BRIDGES), oif(&BRIDGES)], drop()));
    add(Inet, "forward", and(&[oif(&CLOSED)], drop()));
    add(Inet, "forward", and(&[oif(&WALLED)], drop()));

    const SOURCE: (Base, u32) = (Base::Link, 6);
    // Whatever is no port of ours is none of our business. A port of ours that is in no set yet, or no more, is
    // heard by nobody: there is no moment without a guard.
    add(Bridge, "guard", and(&[of_ours(false)], accept()));
    add(Bridge, "guard", and(&[iif(&UNGUARDED)], accept()));
    // Both the sender in the frame, by which a bridge learns, and the one in the message, by which neighbours do.
    let arp = sender(&SENDERS4, Base::Network, (Base::Network, 8), 14, false);
    let framed = sender(&SENDERS4, Base::Network, SOURCE, 14, false);
    add(Bridge, "guard", and(&[protocol_is(ETH_ARP), arp, framed], accept()));
    let ip = sender(&SENDERS4, Base::Network, SOURCE, 12, false);
    add(Bridge, "guard", and(&[protocol_is(ETH_IP), ip], accept()));
    // No container advertises routers or redirects its neighbours.
    add(Bridge, "guard", and(&[icmpv6_type(134)], drop()));
    add(Bridge, "guard", and(&[icmpv6_type(137)], drop()));
    // What a new interface announces would reach every port of the bridge, and its cost grow with their number:
    // reports of multicast listeners, which nobody here asks for, and the search for routers, of which there are none
    // but the host.
    for kind in [131, 132, 133, 143] {
        add(Bridge, "guard", and(&[icmpv6_type(kind)], drop()));
    }
    // Nor answers for an address that is not its own.
    let target = sender(&SENDERS6, Base::Transport, SOURCE, 8, true);
    add(Bridge, "guard", and(&[icmpv6_type(136), target], drop()));
    let ip6 = sender(&SENDERS6, Base::Network, SOURCE, 8, false);
    add(Bridge, "guard", and(&[protocol_is(ETH_IP6), ip6], accept()));
    // What comes from no address goes with the rest: the search for duplicates, which cannot be.
    add(Bridge, "guard", vec![drop()]);

    add(Bridge, "wall", and(&[iif(&WALLED_PORTS)], drop()));
    add(Bridge, "wall", and(&[oif(&WALLED_PORTS)], drop()));

    for (number, family) in [(0, Bridge), (1, Inet)] {
        if family == Inet {
            add(Inet, "sent", vec![meta(Meta::Iifname, 0), cmp(0, false, END.as_bytes()), accept()]);
            add(Inet, "received", vec![meta(Meta::Oifname, 0), cmp(0, false, END.as_bytes()), accept()]);
        }
        add(family, "sent", classify(ETH_IP, 16, &TO4[number]));
        add(family, "sent", classify(ETH_IP6, 24, &TO6[number]));
        add(family, "received", classify(ETH_IP, 12, &FROM4[number]));
        add(family, "received", classify(ETH_IP6, 8, &FROM6[number]));
    }
    // A look at an element that counts, counts.
    for set in SENT.iter().flatten() {
        add(set.family, set.name, iif(set));
    }
    for set in RECEIVED.iter().flatten() {
        add(set.family, set.name, oif(set));
    }
    rules
}

/// Appends what makes the constant part; returns what each of these requests makes.
pub fn requests(requests: &mut Vec<Request>) -> Vec<String> {
    let mut names = Vec::new();
    for (id, set) in (1..).zip(sets()) {
        requests.push(new_set(set, id, set.counting.then(counter)));
        names.push(format!("set {}", set.name));
    }
    for (family, name, kind, hook, priority) in CHAINS {
        requests.push(new_chain(*family, name, kind, *hook, *priority));
        names.push(format!("chain {name} of type {kind}"));
    }
    for set in counters() {
        requests.push(new_plain_chain(set.family, set.name));
        names.push(format!("chain {}", set.name));
    }
    for (number, (family, chain, rule)) in rules().iter().enumerate() {
        requests.push(new_rule(*family, chain, rule));
        names.push(format!("rule {} in {chain}", number + 1));
    }
    names
}

/// The kernel module that a part of the schema needs beyond nf_tables.
pub fn module_of(part: &str) -> Option<&'static str> {
    match part {
        _ if part.contains("type nat") || part.contains(" own") || part.contains(" arriving") => {
            Some("nft_nat")
        }
        _ if part.contains(" leaving") => Some("nft_masq"),
        _ if part.contains(" early") => Some("nft_fib_inet"),
        _ if part.contains(" forward") => Some("nft_ct"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_fit_the_kernels_limit_and_names_are_unique() {
        for set in sets() {
            assert!(set.key_len() <= 64 && set.data_len() <= 64, "{}", set.name);
            let same = sets().filter(|other| (other.family, other.name) == (set.family, set.name));
            assert_eq!(same.count(), 1, "{}", set.name);
        }
        assert_eq!(SENDERS4.key_len(), 28);
        assert_eq!(PUBLISHED4.key_len(), 12);
    }
}
