//! Elements of locule's sets and maps: what containers and networks add and take away.
//!
//! Encodes and reads them. Decides nothing.

use std::net::IpAddr;

use crate::address::{Mac, octets};
use crate::nft::inner;
use crate::nft::message::{self, DELSETELEM, NEWSETELEM, NFTA_SET_ELEM_LIST_ELEMENTS};
use crate::nft::schema::{Field, Set};
use crate::sys::netlink::{Attrs, Message, NESTED, Request, text_of, walk};

const NFTA_LIST_ELEM: u16 = 1;
const NFTA_SET_ELEM_KEY: u16 = 1;
const NFTA_SET_ELEM_DATA: u16 = 2;
const NFTA_SET_ELEM_FLAGS: u16 = 3;
const NFTA_SET_ELEM_EXPR: u16 = 7;
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_DATA_VERDICT: u16 = 2;
const INTERVAL_END: u32 = 1;
/// Elements of one message: an attribute ends at 64 KiB, and the kernel's answer to a wrong message repeats it.
const CHUNK: usize = 16 << 10;

/// A value of a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value<'a> {
    /// Name of an interface.
    Ifname(&'a str),
    /// Hardware address.
    Ether(Mac),
    /// Address.
    Ip(IpAddr),
    /// Transport protocol.
    Protocol(u8),
    /// Port.
    Port(u16),
}

impl Value<'_> {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Value::Ifname(name) => {
                let mut bytes = name.as_bytes().to_vec();
                bytes.resize(16, 0);
                bytes
            }
            Value::Ether(mac) => mac.0.to_vec(),
            Value::Ip(address) => octets(*address),
            Value::Protocol(number) => vec![*number],
            Value::Port(port) => port.to_be_bytes().to_vec(),
        }
    }
}

fn join(fields: &[Field], values: &[Value<'_>]) -> Vec<u8> {
    debug_assert_eq!(fields.len(), values.len());
    let mut bytes = Vec::new();
    for value in values {
        bytes.extend(value.bytes());
        if fields.len() > 1 {
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
    }
    debug_assert!(
        fields.iter().map(|field| field.width()).sum::<usize>() <= bytes.len(),
        "{fields:?} {values:?}"
    );
    bytes
}

/// An element of a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    /// Its set.
    pub set: &'static Set,
    /// Its key.
    pub key: Vec<u8>,
    /// What a map holds for it.
    pub data: Option<Vec<u8>>,
    /// Whether it ends an interval.
    pub end: bool,
}

impl Element {
    /// An element of a set.
    pub fn new(set: &'static Set, key: &[Value<'_>]) -> Element {
        Element { set, key: join(set.key, key), data: None, end: false }
    }

    /// An element of a map.
    pub fn mapped(set: &'static Set, key: &[Value<'_>], data: &[Value<'_>]) -> Element {
        Element { data: Some(join(set.data, data)), ..Element::new(set, key) }
    }

    /// An element of a map that leads to `chain`.
    pub fn leading(set: &'static Set, key: &[Value<'_>], chain: &str) -> Element {
        const GOTO: i32 = -4;
        let verdict = Attrs::new().be32(1, GOTO as u32).text(2, chain);
        Element { data: Some(verdict.into_bytes()), ..Element::new(set, key) }
    }

    /// The end of an interval: the first key behind it.
    pub fn end(set: &'static Set, key: &[Value<'_>]) -> Element {
        Element { end: true, ..Element::new(set, key) }
    }

    /// The interface that the key begins with.
    pub fn interface(&self) -> String {
        text_of(self.key.get(..16).unwrap_or_default())
    }

    fn attrs(&self) -> Attrs {
        let value = |bytes: &[u8]| Attrs::new().put(NFTA_DATA_VALUE, bytes);
        let mut attrs = Attrs::new().nest(NFTA_SET_ELEM_KEY, value(&self.key));
        if let Some(data) = &self.data {
            let data = match self.set.verdicts {
                true => Attrs::new().put(NFTA_DATA_VERDICT | NESTED, data),
                false => value(data),
            };
            attrs = attrs.nest(NFTA_SET_ELEM_DATA, data);
        }
        if self.end {
            attrs = attrs.be32(NFTA_SET_ELEM_FLAGS, INTERVAL_END);
        }
        attrs
    }
}

/// An element that the kernel holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The element.
    pub element: Element,
    /// Packets and bytes, where its set counts.
    pub counted: Option<(u64, u64)>,
}

fn requests(kind: u16, elements: &[Element]) -> Vec<Request> {
    let mut requests = Vec::new();
    let mut list = Attrs::new();
    for (number, element) in elements.iter().enumerate() {
        list = list.nest(NFTA_LIST_ELEM, element.attrs());
        let next = elements.get(number + 1);
        if next.is_none_or(|next| !std::ptr::eq(next.set, element.set)) || list.len() > CHUNK {
            requests.push(message::elements(kind, element.set, std::mem::take(&mut list)));
        }
    }
    requests
}

/// What adds the elements.
pub fn add_requests(elements: &[Element]) -> impl Iterator<Item = Request> {
    requests(NEWSETELEM, elements).into_iter()
}

/// What removes the elements.
pub fn delete_requests(elements: &[Element]) -> impl Iterator<Item = Request> {
    requests(DELSETELEM, elements).into_iter()
}

/// The elements in one message of a listing.
pub fn read(set: &'static Set, message: &Message) -> Vec<Held> {
    let Some(list) = inner(&mut message.attrs(4), NFTA_SET_ELEM_LIST_ELEMENTS) else { return Vec::new() };
    list.filter_map(|(_, element)| read_one(set, element)).collect()
}

fn read_one(set: &'static Set, bytes: &[u8]) -> Option<Held> {
    let value = |kind| inner(&mut walk(bytes), kind)?.next().map(|(_, value)| value.to_vec());
    let flags =
        walk(bytes).find(|(kind, _)| *kind == NFTA_SET_ELEM_FLAGS).and_then(|(_, v)| v.try_into().ok());
    let end = flags.map_or(0, u32::from_be_bytes) & INTERVAL_END != 0;
    let element = Element { set, key: value(NFTA_SET_ELEM_KEY)?, data: value(NFTA_SET_ELEM_DATA), end };
    let counted = inner(&mut walk(bytes), NFTA_SET_ELEM_EXPR).and_then(|mut expr| {
        let number = |bytes: &[u8]| bytes.try_into().ok().map(u64::from_be_bytes);
        let counter: Vec<_> = inner(&mut expr, 2)?.collect();
        let of = |kind| counter.iter().find(|(found, _)| *found == kind).and_then(|(_, v)| number(v));
        Some((of(2)?, of(1)?))
    });
    Some(Held { element, counted })
}
