//! Classes of traffic: which other side counts as what, as `local` or `abroad`.
//!
//! One file of the host maps subnets to the numbers 0 to 7; what is in none is of class 0. Owns the file's form
//! and its elements in the maps.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::address::{Cidr, octets};
use crate::error::{Context, Error, Result};
use crate::nft::element::{Element, Value};
use crate::nft::schema::{CLASSES, FROM4, FROM6, TO4, TO6};
use crate::sys::file;

/// Numbers of classes are below this.
pub const MAX: u32 = CLASSES as u32;

/// Subnets and their classes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Classes(pub BTreeMap<Cidr, u32>);

impl Classes {
    /// Reads the file; none is no classes.
    pub fn load(path: &Path) -> Result<Classes> {
        let Some(text) = file::read(path)? else { return Ok(Classes::default()) };
        let classes: Classes =
            serde_json::from_slice(&text).doing(|| format!("reading {}", path.display()))?;
        if let Some((subnet, class)) =
            classes.0.iter().find(|(subnet, class)| **class >= MAX || !subnet.is_subnet())
        {
            return Err(Error::invalid(format!("class {class} of {subnet} in {}", path.display()))
                .hint("subnets without bits behind their prefix, classes from 0 to 7"));
        }
        Ok(classes)
    }

    /// How many classes there are to count by: the largest number and all below it.
    pub fn count(&self) -> u32 {
        self.0.values().max().map_or(1, |largest| largest + 1)
    }

    /// The elements: the address space cut at each border, the longest prefix deciding between two.
    pub fn elements(&self) -> Vec<Element> {
        let mut elements = Vec::new();
        for (map, chain, ipv4) in [
            (&TO4, "sent", true),
            (&FROM4, "received", true),
            (&TO6, "sent", false),
            (&FROM6, "received", false),
        ] {
            let zero: IpAddr = if ipv4 { [0u8; 4].into() } else { [0u8; 16].into() };
            let all = Cidr { address: zero, prefix: 0 };
            let subnets: Vec<_> =
                self.0.iter().filter(|(subnet, _)| subnet.address.is_ipv4() == ipv4).collect();
            let mut borders: Vec<IpAddr> = vec![zero];
            for (subnet, _) in &subnets {
                borders.push(subnet.first());
                borders.extend(all.offset(subnet.last()).and_then(|at| all.nth(at.checked_add(1)?)));
            }
            borders.sort_unstable_by_key(|address| octets(*address));
            borders.dedup();
            for (number, start) in borders.iter().enumerate() {
                let class = subnets
                    .iter()
                    .filter(|(subnet, _)| subnet.contains(*start))
                    .max_by_key(|(subnet, _)| subnet.prefix)
                    .map_or(0, |(_, class)| **class);
                for map in map {
                    elements.push(Element::leading(map, &[Value::Ip(*start)], &format!("{chain}{class}")));
                    if let Some(next) = borders.get(number + 1) {
                        elements.push(Element::end(map, &[Value::Ip(*next)]));
                    }
                }
            }
        }
        elements
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_decides() {
        let classes: Classes =
            serde_json::from_str(r#"{"10.0.0.0/8": 1, "10.1.0.0/16": 2, "192.0.2.0/24": 3}"#).unwrap();
        let of_ipv4: Vec<(Vec<u8>, u8)> = classes
            .elements()
            .into_iter()
            .filter(|element| std::ptr::eq(element.set, &TO4[0]) && !element.end)
            .map(|element| (element.key, *element.data.unwrap().iter().rfind(|byte| **byte != 0).unwrap()))
            .collect();
        let expect: Vec<([u8; 4], u8)> = vec![
            ([0, 0, 0, 0], b'0'),
            ([10, 0, 0, 0], b'1'),
            ([10, 1, 0, 0], b'2'),
            ([10, 2, 0, 0], b'1'),
            ([11, 0, 0, 0], b'0'),
            ([192, 0, 2, 0], b'3'),
            ([192, 0, 3, 0], b'0'),
        ];
        let expect: Vec<_> = expect.into_iter().map(|(key, class)| (key.to_vec(), class)).collect();
        assert_eq!(of_ipv4, expect);
    }
}
