//! The expressions that rules consist of: load into registers, compare, look up, decide.
//!
//! Registers are the sixteen 4-byte ones; a key of several fields stands in neighbours of them,
//! each field padded to four bytes. Encodes only.

use crate::sys::netlink::Attrs;

const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_DATA_VERDICT: u16 = 2;

/// The register of the n-th four bytes.
fn register(slot: u32) -> u32 {
    libc::NFT_REG32_00 as u32 + slot
}

fn expr(name: &str, data: Attrs) -> Attrs {
    Attrs::new().text(NFTA_EXPR_NAME, name).nest(NFTA_EXPR_DATA, data)
}

fn value(bytes: &[u8]) -> Attrs {
    Attrs::new().put(NFTA_DATA_VALUE, bytes)
}

/// What `meta` loads.
#[derive(Debug, Clone, Copy)]
pub enum Meta {
    /// Ethernet protocol, network order.
    Protocol = 1,
    /// Name of the incoming interface.
    Iifname = 6,
    /// Name of the outgoing interface.
    Oifname = 7,
    /// Family, `NFPROTO_*`.
    Nfproto = 15,
    /// Transport protocol.
    L4proto = 16,
}

/// Loads packet information into a slot.
pub fn meta(key: Meta, slot: u32) -> Attrs {
    expr("meta", Attrs::new().be32(1, register(slot)).be32(2, key as u32))
}

/// Where a payload offset counts from.
#[derive(Debug, Clone, Copy)]
pub enum Base {
    /// The Ethernet header.
    Link = 0,
    /// The IP or ARP header.
    Network = 1,
    /// The TCP, UDP or ICMP header.
    Transport = 2,
}

/// Loads bytes of the packet into a slot.
pub fn payload(base: Base, offset: u32, length: u32, slot: u32) -> Attrs {
    let data = Attrs::new().be32(1, register(slot)).be32(2, base as u32).be32(3, offset).be32(4, length);
    expr("payload", data)
}

/// Goes on if the slot holds `bytes` (or, with `equal` false, something else).
pub fn cmp(slot: u32, equal: bool, bytes: &[u8]) -> Attrs {
    expr("cmp", Attrs::new().be32(1, register(slot)).be32(2, u32::from(!equal)).nest(3, value(bytes)))
}

/// Masks the slot's bytes.
pub fn mask(slot: u32, bytes: &[u8]) -> Attrs {
    let data = Attrs::new()
        .be32(1, register(slot))
        .be32(2, register(slot))
        .be32(3, bytes.len() as u32)
        .nest(4, value(bytes))
        .nest(5, value(&vec![0; bytes.len()]));
    expr("bitwise", data)
}

/// Goes on if the set has (or, with `inverted`, lacks) the key that begins in `slot`.
pub fn lookup(set: &str, slot: u32, inverted: bool) -> Attrs {
    let data = Attrs::new().text(1, set).be32(2, register(slot)).be32(5, u32::from(inverted));
    expr("lookup", data)
}

/// Loads what the map holds for the key in `slot` into `to`; goes on only if there is something.
pub fn lookup_into(map: &str, slot: u32, to: u32) -> Attrs {
    expr("lookup", Attrs::new().text(1, map).be32(2, register(slot)).be32(3, register(to)))
}

/// Goes where the map says for the key in `slot`.
pub fn lookup_verdict(map: &str, slot: u32) -> Attrs {
    let data = Attrs::new().text(1, map).be32(2, register(slot)).be32(3, libc::NFT_REG_VERDICT as u32);
    expr("lookup", data)
}

/// What `ct` loads.
#[derive(Debug, Clone, Copy)]
pub enum Ct {
    /// Bits of the state.
    State = 0,
    /// Bits of `IPS_*`.
    Status = 2,
}

/// Loads connection information into a slot.
pub fn ct(key: Ct, slot: u32) -> Attrs {
    expr("ct", Attrs::new().be32(1, register(slot)).be32(2, key as u32))
}

/// Loads the type of the destination address into a slot.
pub fn fib_daddr_type(slot: u32) -> Attrs {
    const RESULT_ADDRTYPE: u32 = 3;
    const DADDR: u32 = 2;
    expr("fib", Attrs::new().be32(1, register(slot)).be32(2, RESULT_ADDRTYPE).be32(3, DADDR))
}

/// Loads the interface that the source is reached by, if it is the one the packet came in on; else 0.
pub fn fib_saddr_iif_oif(slot: u32) -> Attrs {
    const RESULT_OIF: u32 = 1;
    const SADDR_IIF: u32 = 1 | 8;
    expr("fib", Attrs::new().be32(1, register(slot)).be32(2, RESULT_OIF).be32(3, SADDR_IIF))
}

/// Ends the chain with accept or drop.
pub fn verdict(accept: bool) -> Attrs {
    let code = if accept { libc::NF_ACCEPT } else { libc::NF_DROP };
    let verdict = Attrs::new().nest(NFTA_DATA_VERDICT, Attrs::new().be32(1, code as u32));
    expr("immediate", Attrs::new().be32(1, libc::NFT_REG_VERDICT as u32).nest(2, verdict))
}

/// Sends to the address and port in these slots.
pub fn dnat(family: u32, address: u32, port: u32) -> Attrs {
    const NAT_DNAT: u32 = 1;
    let data =
        Attrs::new().be32(1, NAT_DNAT).be32(2, family).be32(3, register(address)).be32(5, register(port));
    expr("nat", data)
}

/// Gives the packet the address of the interface it leaves by.
pub fn masquerade() -> Attrs {
    expr("masq", Attrs::new())
}

/// Counts packets and bytes.
pub fn counter() -> Attrs {
    expr("counter", Attrs::new())
}
