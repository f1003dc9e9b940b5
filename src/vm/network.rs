//! The network of a machine: what is told of the interfaces that were taken over for it.

use std::os::fd::OwnedFd;

use locule_channel::document::{Interface, Neighbour, Route};
use locule_netns::takeover::{self, Taken};
use locule_runtime::error::Context;
use locule_runtime::{Error, Kind, Result};

/// What an interface of the machine can be set to at most; the guest is told its own with its addresses. pasta's has 65520.
pub const LARGEST_MTU: u16 = u16::MAX;

/// Takes over the interfaces of the calling process's network namespace: their documents, and a tap for each.
pub fn take_over() -> Result<(Vec<u8>, Vec<OwnedFd>)> {
    let taken = takeover::take_over().map_err(|err| Error::new(Kind::System, err.to_string()))?;
    let documents: Vec<Interface> = taken.iter().map(document).collect();
    let text = serde_json::to_vec(&documents).doing(|| "describing the container's network")?;
    Ok((text, taken.into_iter().map(|taken| taken.tap).collect()))
}

/// Reads what [`take_over`] told.
pub fn read(text: &[u8]) -> Result<Vec<Interface>> {
    serde_json::from_slice(text).doing(|| "reading of the container's network")
}

/// The hardware address that the machine's interface number `at` has until it takes another's place.
pub fn first_mac(at: usize) -> [u8; 6] {
    // Locally administered, in a range of no maker's.
    [0x06, 0x6c, 0x63, 0x76, 0x6d, u8::try_from(at).unwrap_or(u8::MAX)]
}

/// The document for the machine's interface number `at`, which takes the place of the one that was taken over.
pub fn place(document: Interface, at: usize) -> Interface {
    Interface { address: Some(document.mac), mac: text(first_mac(at)), ..document }
}

/// A hardware address as text.
pub fn text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

fn document(taken: &Taken) -> Interface {
    Interface {
        name: taken.name.clone(),
        mac: text(taken.mac.0),
        address: None,
        mtu: Some(taken.mtu),
        addresses: taken.addresses.iter().map(ToString::to_string).collect(),
        routes: taken
            .routes
            .iter()
            .map(|way| Route {
                destination: way.to.to_string(),
                gateway: way.via.map(|via| via.to_string()),
                source: way.source.map(|source| source.to_string()),
                metric: way.metric,
                onlink: way.onlink,
            })
            .collect(),
        neighbours: taken
            .neighbours
            .iter()
            .map(|(address, mac)| Neighbour { address: address.to_string(), mac: text(mac.0) })
            .collect(),
    }
}
